"""Merging updates of a full-width ResNet18, against Flower's own aggregation of the same network in the same run.

    scripts/bench/merge                                      speed, then memory, some five minutes
    scripts/bench/merge --quick                              an eighth of the width, 10 and 100 devices
    scripts/bench/merge --json docs/results/bench/merge.json

What is timed is a whole round on one thread, in CPU time, over the number of its updates: payload bytes to the merged
model here, bytes of Flower's messages to the averaged arrays there, `FedAvg.aggregate_train` after its own parsing. The
limits are for that ratio; the one to Flower's aggregation alone, its bytes parsed for nothing, stands beside it. Rounds
are interleaved: one of Flower's, then one of each codec; the ratio within a turn is the result, its median over turns.

Flower runs in a virtual environment of its own, `.venv-flower` or what BITFLEET_FLOWER names, since what it depends on
and what we do exclude each other. Memory is the peak of the resident set over what a process held before the first
update; it is read from /proc, so this needs Linux.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import Final, Self

import numpy as np
from evidence import Figure, write
from merge_round import CASES, PRECISION, Case, base_of, merged
from real_update import FULL_WIDTH, NARROW, RealUpdate, make
from rich.console import Console
from rich.progress import track
from rich.table import Table

from aggregator.merge.kernel import GROUP, chosen
from aggregator.model import GlobalModel
from protocol.architecture import Role, Tensors
from protocol.codec.payload import Content, Header, decode, encode

UPDATES: Final = 1000
"""Of one of our rounds, of at most 1,024: what is done once, at its end, is shared by all."""
FLOWER_UPDATES: Final = 16
"""Of one of Flower's, which holds them all in memory; from here on an update costs it the same."""
DEVICES: Final = 4
"""Different updates; devices repeat them, with numbers of samples of their own."""
COLD_BYTES: Final = 1 << 26
"""Copies of payloads that are merged in turn: more than caches hold, so that none is there from the last time."""
FEW, MANY = 10, 1000
MAX_MEMORY: Final = 1.2
MAX_OFF: Final = 1e-6
MAX_FLOWER_OFF: Final = 1e-4
"""It adds float32 up one after the other."""
REPEATS: Final = 9
FLOWER: Final = "BITFLEET_FLOWER"


@dataclass
class Row:
    """What was measured of one codec."""

    case: Case
    payloads: list[bytes]
    off: float = 0.0
    update_ms: list[float] = field(default_factory=list)
    from_wire: list[float] = field(default_factory=list)
    aggregation: list[float] = field(default_factory=list)
    peaks_mb: dict[int, float] = field(default_factory=dict)


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    console = Console(stderr=True)
    with console.status("training the updates"):
        updates = [make(NARROW if arguments.quick else FULL_WIDTH, seed=seed) for seed in range(DEVICES)]
    flower_ms = []
    with console.status("encoding them"):
        rows = [Row(case, payloads_of(case, updates)) for case in CASES]
    base = base_of(updates[0].architecture)
    for row in track(rows, "comparing with the plain mean", console=console):
        row.off = off(row, base)
    with tempfile.TemporaryDirectory() as folder, Flower(updates[0].tensors, Path(folder)) as flower:
        for _ in track(range(arguments.repeats), "taking turns", console=console):
            parse_ms, aggregate_ms = flower.round_ms()
            flower_ms.append((parse_ms, aggregate_ms))
            for row in rows:
                ours_ms = round_ms(row, base)
                row.update_ms.append(ours_ms)
                row.from_wire.append((parse_ms + aggregate_ms) / ours_ms)
                row.aggregation.append(aggregate_ms / ours_ms)
    counts = (FEW, MANY // 10 if arguments.quick else MANY)
    for row, count in track(list(itertools.product(rows, counts)), "memory", console=console):
        row.peaks_mb[count] = peak_mb(row, base.architecture, count)
    show(updates[0], rows, flower_ms)
    figures = [figure for row in rows for figure in _figures(row, base.architecture, limited=not arguments.quick)]
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/merge", figures, wall_s=wall_s, packages=("numpy",))
    sys.exit(any(figure.met is False for figure in figures))


def payloads_of(case: Case, updates: Sequence[RealUpdate]) -> list[bytes]:
    """Each device's payload."""
    several = [dict(update.tensors) for update in updates]
    header = Header(updates[0].architecture, case.name, PRECISION, Content.DELTA, updates[0].pictures)
    if case.announced:
        _announce(header, several)
    return [encode(header, tensors, np.random.default_rng(device)) for device, tensors in enumerate(several)]


def _announce(header: Header, several: Sequence[Tensors]) -> None:
    """Give a weight tensor the same largest magnitude on every device, which is the step that stochastic signs take."""
    for spec in header.specs:
        if spec.role is Role.WEIGHT:
            step = max(float(np.abs(tensors[spec.name]).max()) for tensors in several)
            for tensors in several:
                tensors[spec.name] = tensors[spec.name].copy()
                tensors[spec.name].flat[0] = step


def round_ms(row: Row, base: GlobalModel) -> float:
    """CPU milliseconds of an update in a round of them, after a short one that fills the memory, as Flower's is."""
    copies = max(len(row.payloads), min(UPDATES, COLD_BYTES // len(row.payloads[0])))
    cold = [bytes(bytearray(row.payloads[index % DEVICES])) for index in range(copies)]
    merged(base, row.case, itertools.cycle(cold), GROUP)
    begin_ns = time.process_time_ns()
    merged(base, row.case, itertools.cycle(cold), UPDATES)
    return (time.process_time_ns() - begin_ns) / UPDATES / 1e6


def off(row: Row, base: GlobalModel) -> float:
    """The largest difference between a merged weight and the plain mean of what was decoded, in float64."""
    ours = merged(base, row.case, itertools.cycle(row.payloads), UPDATES).shared
    samples = [sum(row.case.samples(device) for device in range(first, UPDATES, DEVICES)) for first in range(DEVICES)]
    decoded = [decode(payload).tensors for payload in row.payloads]
    worst = 0.0
    for name, base_X in base.shared.items():
        mean_X = sum(
            weight * tensors[name].astype(np.float64) for weight, tensors in zip(samples, decoded, strict=True)
        )
        worst = max(worst, float(np.abs(ours[name] - (base_X + mean_X / sum(samples))).max()))
    return worst


def peak_mb(row: Row, architecture: str, updates: int) -> float:
    """Megabytes that merging so many takes at its peak, in a process of its own that reads one payload at a time."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(device) for device in range(DEVICES)]
        for file, payload in zip(files, row.payloads, strict=True):
            file.write_bytes(payload)
        program = Path(__file__).parent / "merge_round.py"
        command = [sys.executable, str(program), architecture, row.case.name, str(updates), *map(str, files)]
        # What is freed goes back to the system: else what was held before hides a part of what merging takes.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
        ran = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=True)
        return float(ran.stdout)


class Flower:
    """`flower_rival.py` in its own environment, one round at a time."""

    def __init__(self, tensors: Tensors, folder: Path) -> None:
        update = folder / "update.npz"
        np.savez(update, **tensors)  # type: ignore[arg-type]
        python = Path(os.environ.get(FLOWER, ".venv-flower")) / "bin" / "python"
        rival = Path(__file__).parent / "flower_rival.py"
        environment = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            (str(python), str(rival), str(update), str(FLOWER_UPDATES)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def __enter__(self) -> Self:
        self.round_ms()  # the first one fills its memory
        return self

    def round_ms(self) -> tuple[float, float]:
        """CPU milliseconds of an update, parsed from its bytes and then aggregated."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit("Flower's process ended; what it said is above")
        told = json.loads(answer)
        if not told["off"] <= MAX_FLOWER_OFF:
            sys.exit(f"Flower's average of equal updates is off by {told['off']:g}")
        return told["parse"], told["aggregate"]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.communicate()


def show(update: RealUpdate, rows: Sequence[Row], flower_ms: Sequence[tuple[float, float]]) -> None:
    """The table."""
    few, many = rows[0].peaks_mb
    table = Table(
        *("codec", "kB", "ms", "× Flower", "limit", "× alone"),
        *(f"MB, {few}", f"MB, {many}", "×", "off"),
    )
    for row in rows:
        table.add_row(
            row.case.name,
            f"{len(row.payloads[0]) / 1e3:,.0f}",
            f"{median(row.update_ms):.3f}",
            f"{median(row.from_wire):.1f}",
            f"{row.case.limit:g}",
            f"{median(row.aggregation):.1f}",
            f"{row.peaks_mb[few]:.0f}",
            f"{row.peaks_mb[many]:.0f}",
            f"{row.peaks_mb[many] / row.peaks_mb[few]:.2f}",
            f"{row.off:.1e}",
        )
    parse, aggregate = (median(column) for column in zip(*flower_ms, strict=True))
    table.caption = (
        f"{update.architecture}: {update.parameters:,} values; CPU time of one thread, {chosen()} kernel, rounds of"
        f" {UPDATES}; Flower {parse:.1f} ms to parse and {aggregate:.1f} ms to aggregate an update, in rounds of"
        f" {FLOWER_UPDATES}"
    )
    Console().print(table)


def _figures(row: Row, architecture: str, *, limited: bool) -> Iterator[Figure]:
    name, limit = row.case.name, row.case.limit
    context = f"{architecture}, one thread, {chosen()} kernel, rounds of {UPDATES}, Flower's of {FLOWER_UPDATES}"
    for what, ratios, least in (("over_flower", row.from_wire, limit), ("over_aggregation", row.aggregation, None)):
        low, middle, high = quantiles(ratios, n=4)
        held = limited and least is not None
        said, met = (f">= {least:g}", middle >= least) if held and least is not None else (None, None)
        spread = [round(low, 2), round(high, 2)]
        note = f"updates a second; {median(row.update_ms):.3f} ms an update; {context}"
        yield Figure(f"{name}.{what}", round(middle, 2), "ratio", said, met, len(ratios), spread, note)
    (few, few_mb), (many, many_mb) = row.peaks_mb.items()
    ratio, note = many_mb / few_mb, f"{many} devices {many_mb:.0f} MB, {few} devices {few_mb:.0f} MB"
    said, met = (f"<= {MAX_MEMORY:g}", ratio <= MAX_MEMORY) if limited else (None, None)
    yield Figure(f"{name}.memory", round(ratio, 3), "ratio", said, met, 1, None, note)
    note = "largest difference between a merged weight and the mean of what was decoded"
    yield Figure(f"{name}.off", row.off, "of a weight", f"<= {MAX_OFF:g}", row.off <= MAX_OFF, 1, None, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="an eighth of the width, which no speed limit is for")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns (default {REPEATS})")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
