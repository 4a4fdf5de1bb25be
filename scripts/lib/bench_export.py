"""Size, time to make and to load, memory and exactness of exported models.

    scripts/bench/export                        full width; every network at every precision on 10,000 pictures, half
                                                an hour
    scripts/bench/export --quick                quarter width, 200 pictures, a minute
    scripts/bench/export --json docs/results/bench/export.json    the same figures for others to check

Files are those of ResNet18 with a 3×3 stem, one nested file for all widths among them; time is CPU time. Memory is what
a fresh process grows by from loading the file and running it once, over the same of fp32.

Exactness: every network, narrow, calibrated on some of the pictures, at every precision; its file must give every bit
of every logit that the integer reference in numpy gives. Pictures are Fashion-MNIST's test pictures where Debian's
package has put them, else scikit-learn's digits.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from evidence import Figure, write
from narrow import CALIBRATION, SPECS, quantized, real_pictures
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export import ort
from export.check import Report, check
from export.nested import write_nested
from export.passes import to_onnx
from export.writer import serialize
from protocol import networks
from protocol.architecture import Architecture
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import Precision

NESTED: Final = "nested"
FILES: Final = ("fp32", "W8A8", "W6A8", "W5A8", "W4A8", "W4A4", "W3A8", "W2A8", "W2A2", "W1A8", "W1A1")
LIMITS_MB: Final = {"fp32": 44.9, "W8A8": 11.3, "W4A8": 5.7, "W2A8": 2.9, "W1A8": 1.52, "W1A1": 1.52, NESTED: 12.4}
NESTED_WIDTHS: Final = tuple(Precision(bits, 8) for bits in (8, 6, 4, 3, 2, 1))
MAX_EXPORT_S: Final = 1.0

PICTURES: Final = 10_000
QUICK_PICTURES: Final = 200
PRECISIONS: Final = (*FILES[1:], "W8A4", "W8A2", "W6A4", "W5A4", "W4A2", "W3A4", "W3A2", "W2A4", "W1A4", "W1A2")
"""Every width of weights with 8, 4 and 2 bits of activations."""


@dataclass(frozen=True)
class Written:
    """One file, the CPU seconds to make and to load it, and the memory that it takes to run."""

    name: str
    file_bytes: int
    export_s: float
    load_s: float | None
    resident_bytes: int | None


@dataclass(frozen=True)
class Exact:
    """How one file agreed with the reference."""

    family: str
    precision: str
    report: Report


def main() -> None:
    arguments = _arguments()
    began_s, console = time.perf_counter(), Console(stderr=True)
    width = 0.25 if arguments.quick else 1.0
    files = [_written(resnet18(width=width), name) for name in track(FILES, "writing files", console=console)]
    files.append(_nested(resnet18(width=width, nested=True)))
    exact = _exactness(QUICK_PICTURES if arguments.quick else arguments.pictures, console)
    show(files, exact, console=Console())
    figures = [*_file_figures(files, limited=not arguments.quick), *_exact_figures(exact)]
    if arguments.json is not None:
        packages = ("numpy", "onnx", "onnxruntime")
        write(arguments.json, "bench/export", figures, wall_s=time.perf_counter() - began_s, packages=packages)
    sys.exit(any(figure.met is False for figure in figures))


def _written(network: Architecture, name: str) -> Written:
    precision = Precision.parse(name)
    tensors = initial_tensors(network, precision, 0)
    begin = time.process_time()
    model = serialize(to_onnx(network, precision, tensors))
    exported = time.process_time()
    ort.session(model)
    loaded = time.process_time()
    return Written(name, len(model), exported - begin, loaded - exported, _resident_bytes(model, network))


def _nested(network: Architecture) -> Written:
    tensors = {precision: initial_tensors(network, precision, 0) for precision in NESTED_WIDTHS}
    begin = time.process_time()
    data = write_nested(network, NESTED_WIDTHS, tensors.__getitem__)
    return Written(NESTED, len(data), time.process_time() - begin, None, None)


def _resident_bytes(model: bytes, network: Architecture) -> int:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(model)
        file.flush()
        command: list[str | Path] = [sys.executable, Path(__file__).with_name("resident.py"), file.name, network.spec]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _exactness(pictures: int, console: Console) -> list[Exact]:
    """Every network at every precision, several processes at a time."""
    cases = list(product(SPECS, PRECISIONS))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        jobs = {pool.submit(_exact, family, precision, pictures): None for family, precision in cases}
        done = track(as_completed(jobs), "comparing with the reference", total=len(jobs), console=console)
        found = {(each.family, each.precision): each for each in (job.result() for job in done)}
    return [found[case] for case in cases]


def _exact(family: str, name: str, pictures: int) -> Exact:
    network, precision = networks.parse(SPECS[family]), Precision.parse(name)
    train, test = real_pictures(network)
    tensors = quantized(network, precision, train.pictures_NCHW[:CALIBRATION])
    model = serialize(to_onnx(network, precision, tensors))
    return Exact(family, name, check(model, network, precision, tensors, test.pictures_NCHW[:pictures]))


def show(files: list[Written], exact: list[Exact], *, console: Console) -> None:
    table = Table("file", "MB", "export s", "load s", "resident MB", title="ResNet18", title_justify="left")
    for row in files:
        load, peak = f"{row.load_s or 0:.2f}", f"{(row.resident_bytes or 0) / 1e6:.0f}"
        shown = (load, peak) if row.load_s is not None else ("", "")
        table.add_row(row.name, f"{row.file_bytes / 1e6:.2f}", f"{row.export_s:.2f}", *shown)
    console.print(table)
    title = f"every bit as the reference has it, {exact[0].report.pictures:,} pictures"
    table = Table("precision", *SPECS, title=title, title_justify="left")
    equal = {(each.family, each.precision): each.report.bit_equal for each in exact}
    for precision in PRECISIONS:
        table.add_row(precision, *("yes" if equal[family, precision] else "NO" for family in SPECS))
    console.print(table)


def _file_figures(files: list[Written], *, limited: bool) -> Iterator[Figure]:
    """`limited` where the limits were set for this width."""
    note, usual = "ResNet18, 3x3 stem, 10 classes", files[0].resident_bytes or 1
    for row in files:
        megabytes, limit = row.file_bytes / 1e6, LIMITS_MB.get(row.name) if limited else None
        yield _limited(f"{row.name}.file", megabytes, "MB", limit, note)
        limit = MAX_EXPORT_S if limited else None
        yield _limited(f"{row.name}.export", round(row.export_s, 3), "s of CPU time", limit, note)
        if row.load_s is not None and row.resident_bytes is not None:
            yield _limited(f"{row.name}.load", round(row.load_s, 3), "s of CPU time", None, note)
            ratio, grown = round(row.resident_bytes / usual, 3), row.resident_bytes / 1e6
            growth = f"growth of the resident set, over that of fp32; {grown:.0f} MB"
            yield _limited(f"{row.name}.memory.over_fp32", ratio, "ratio", None, growth)


def _limited(name: str, value: float, unit: str, limit: float | None, note: str) -> Figure:
    if limit is None:
        return Figure(name, value, unit, None, None, 1, None, note)
    return Figure(name, value, unit, f"<= {limit:g}", value <= limit, 1, None, note)


def _exact_figures(exact: list[Exact]) -> Iterator[Figure]:
    for family in SPECS:
        rows = [each for each in exact if each.family == family]
        worst = min(100.0 * each.report.bit_equal for each in rows)
        note = f"worst of {len(rows)} precisions, {', '.join(each.precision for each in rows)}; {SPECS[family]}"
        pictures = rows[0].report.pictures
        yield Figure(f"{family}.bit_equal", worst, "% of pictures", "== 100", worst == 100, pictures, None, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="quarter width, few pictures, no limits on size and time")
    parser.add_argument("--pictures", type=int, default=PICTURES, help=f"to compare on (default {PICTURES:,})")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
