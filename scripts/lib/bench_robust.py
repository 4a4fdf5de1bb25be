"""What a fleet learns while some of its devices lie, by rule of merging; and what each rule takes beside the mean.

    scripts/bench/robust                                            a quarter of an hour of one core
    scripts/bench/robust --quick                                    digits, two rounds: does everything work?
    scripts/bench/robust --json docs/results/bench/robust.json --plot docs/results/bench/robust.svg

Ten devices learn Fashion-MNIST in the simulation (the product's trainer, codec, door and merge); one, two or three of
them attack in every round, as `simulation/attack.py` says, and in calibrations too. Accuracy is that of the final
calibrated model on the 10,000 test pictures; rows with a limit are means of three seeds, the others one run. Runs go on
after an interruption.

Time and memory are of one thread merging updates of a ResNet18 as the default recipe codes them, in a process of its
own; memory is the peak of the resident set over what it held before the first update, read from /proc (Linux).
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
from evidence import Figure, write
from merge_round import PRECISION
from reproduce.plots import Series, curves_beside
from rich.console import Console
from rich.table import Table
from simulation import Outcome, Setup, forget, run

from aggregator.robust import MEAN
from protocol import networks
from protocol.architecture import Role
from protocol.codec.payload import Content, Header, encode
from protocol.codec.recipe import DEFAULT_RECIPE

FOLDER: Final = Path("simulations")
RULES: Final = (MEAN, "clip:median", "median", "trimmed:0.3", "krum:0.3", "multi-krum:0.3")
WATCHED: Final = ("trimmed:0.3", "multi-krum:0.3")
"""One of which must hold at 30 % sign flip."""
ATTACKS: Final = ("sign-flip:4", "scale:10", "label-flip", "gaussian:1")
REFUSED: Final = "nan"
"""The door's work, not a rule's."""
WORST: Final = "sign-flip:4"
SHARES: Final = (0.1, 0.2, 0.3)
SEEDS: Final = (0, 1, 2)
MAX_LOST: Final = 3.0
"""Points."""
COLLAPSED: Final = 20.0
"""Percent: twice what guessing reaches."""
FEW, MANY = 20, 200
MAX_MEMORY: Final = 1.25
FULL: Final = Setup(
    "cnn4:width=0.25,input=1x28x28,classes=10",
    method="fp32",
    pictures=3000,
    rounds=10,
    last=1,
    learning_rate=0.2,
)
QUICK: Final = replace(
    FULL, network="cnn4:width=0.25,input=1x8x8,classes=10", data="digits", pictures=600, rounds=2, learning_rate=0.1
)
LARGE: Final = "resnet18:width=0.5,stem=3x3,input=3x32x32,classes=10"
SMALL: Final = "resnet18:width=0.125,stem=3x3,input=3x32x32,classes=10"


@dataclass(frozen=True)
class Cost:
    """What merging so many updates took."""

    rule: str
    updates: int
    cpu_s: float
    wall_s: float
    peak_mb: float
    spool_mb: float


Results = Mapping[tuple[str, str], Sequence[float]]
"""Percent right of every seed, by attack with its share (empty for none) and rule."""


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    setups = planned(QUICK if arguments.quick else FULL, quick=arguments.quick)
    if arguments.fresh:
        forget(setups, FOLDER)
    outcomes = run(setups, FOLDER, 1, "cpu", show=True)
    results = accuracies(outcomes)
    costs = list(measured(SMALL if arguments.quick else LARGE, (FEW, MANY // 4 if arguments.quick else MANY)))
    show(results, costs)
    figures = [*_figures(results, limited=not arguments.quick), *_cost_figures(costs, limited=not arguments.quick)]
    if arguments.plot is not None:
        arguments.plot.write_text(plot(results))
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/robust", figures, wall_s=wall_s, packages=("numpy", "torch"))
    sys.exit(any(figure.met is False for figure in figures))


# --- accuracy ---


def planned(base: Setup, *, quick: bool) -> list[Setup]:
    """Every run, those with a limit first."""
    worst = f"{WORST}:{SHARES[-1]:g}"
    several = [("", MEAN), (worst, MEAN), *((worst, rule) for rule in WATCHED)]
    runs = [(attack, rule, seed) for attack, rule in several for seed in SEEDS[: 1 if quick else None]]
    if not quick:
        runs += [("", rule, 0) for rule in RULES]
        kinds = itertools.product(ATTACKS, SHARES[::-1], RULES)
        runs += [(f"{attack}:{share:g}", rule, 0) for attack, share, rule in kinds]
    runs += [(f"{REFUSED}:{SHARES[-1]:g}", MEAN, 0)]
    return [replace(base, attack=attack, merge=rule, seed=seed) for attack, rule, seed in dict.fromkeys(runs)]


def accuracies(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[float]]:
    """By what was done and how it was merged."""
    found: dict[tuple[str, str], list[float]] = {}
    for outcome in outcomes:
        setup = outcome.setup
        found.setdefault((setup.attack, setup.merge), []).append(100 * outcome.mean("fp32"))
    return found


def _figures(results: Results, *, limited: bool) -> Iterator[Figure]:
    clean = fmean(results["", MEAN])
    for (attack, rule), percents in results.items():
        value = fmean(percents)
        fell = limited and (attack, rule) == (f"{WORST}:{SHARES[-1]:g}", MEAN)
        said, met = (f"<= {COLLAPSED:g}", value <= COLLAPSED) if fell else (None, None)
        spread = [round(min(percents), 2), round(max(percents), 2)] if len(percents) > 1 else None
        note = f"of the test, ten devices; the plain mean without attackers {clean:.2f}"
        name = f"{rule}.{attack or 'clean'}.accuracy"
        yield Figure(name, round(value, 2), "percent", said, met, len(percents), spread, note)
    worst = f"{WORST}:{SHARES[-1]:g}"
    lost = {
        rule: [was - now for was, now in zip(results["", MEAN], results[worst, rule], strict=True)] for rule in WATCHED
    }
    best = min(lost, key=lambda rule: fmean(lost[rule]))
    for rule in WATCHED:
        value = fmean(lost[rule])
        held = limited and rule == best
        said, met = (f"<= {MAX_LOST:g}", value <= MAX_LOST) if held else (None, None)
        spread = [round(min(lost[rule]), 2), round(max(lost[rule]), 2)]
        note = (
            f"behind the plain mean without attackers, at {worst}, seed by seed; the limit is for the better of the two"
        )
        yield Figure(f"{rule}.{worst}.lost", round(value, 2), "points", said, met, len(lost[rule]), spread, note)


def plot(results: Results) -> str:
    """Accuracy over the share of attackers, an attack beside the other, a line a rule."""
    ticks = ("0", *(f"{share:.0%}" for share in SHARES))
    sides = {}
    for attack in ATTACKS:
        conditions = ("", *(f"{attack}:{share:g}" for share in SHARES))
        sides[attack] = [
            Series(
                rule,
                {tick: results.get((one, rule), []) for tick, one in zip(ticks, conditions, strict=True)},
                dashed=rule == MEAN,
            )
            for rule in RULES
        ]
    return curves_beside(sides, ticks, "devices that attack", "accuracy, %")


# --- time and memory ---


def measured(architecture: str, counts: Sequence[int]) -> Iterator[Cost]:
    """Every rule on so many updates, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        files = _payloads(architecture, Path(folder))
        for rule, count in itertools.product(RULES, counts):
            program = Path(__file__).parent / "robust_round.py"
            command = [sys.executable, str(program), architecture, rule, str(count), *map(str, files)]
            # What is freed goes back to the system: else what was held before hides a part of what merging takes.
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "OMP_NUM_THREADS": "1"}
            ran = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=True)
            told: dict[str, Any] = json.loads(ran.stdout)
            yield Cost(rule, count, **told)


def _payloads(architecture: str, folder: Path, several: int = 8) -> list[Path]:
    """Updates that differ, as the default recipe codes them."""
    header = Header(networks.parse(architecture).spec, DEFAULT_RECIPE, PRECISION, Content.DELTA, 500)
    files = []
    for seed in range(several):
        rng = np.random.default_rng(seed)
        scale = np.float32(0.01)
        tensors = {spec.name: scale * rng.standard_normal(spec.shape, dtype=np.float32) for spec in header.specs}
        for spec in header.specs:
            if spec.role is Role.VARIANCE:
                tensors[spec.name] = np.abs(tensors[spec.name])
        files.append(folder / str(seed))
        files[-1].write_bytes(encode(header, tensors, rng))
    return files


def _cost_figures(costs: Sequence[Cost], *, limited: bool) -> Iterator[Figure]:
    plain = {cost.updates: cost for cost in costs if cost.rule == MEAN}
    for few, many in zip(costs[::2], costs[1::2], strict=True):
        ratio = many.peak_mb / few.peak_mb
        said, met = (f"<= {MAX_MEMORY:g}", ratio <= MAX_MEMORY) if limited else (None, None)
        note = (
            f"{many.updates} updates {many.peak_mb:.0f} MB, {few.updates} updates {few.peak_mb:.0f} MB, the plain mean"
            f" {plain[many.updates].peak_mb:.0f} MB; {many.spool_mb:.0f} MB on disk meanwhile"
        )
        yield Figure(f"{many.rule}.memory", round(ratio, 3), "ratio", said, met, 1, None, note)
        note = f"processor time of {many.updates} updates, one thread; the plain mean {plain[many.updates].cpu_s:.2f} s"
        yield Figure(f"{many.rule}.merge", round(many.cpu_s, 2), "s", None, None, 1, None, note)


# --- telling ---


def show(results: Results, costs: Sequence[Cost]) -> None:
    """Both tables."""
    table = Table(title="accuracy, %")
    for name in ("attack", *RULES):
        table.add_column(name, overflow="fold")
    for attack in dict.fromkeys(attack for attack, _ in results):
        cells = [results.get((attack, rule), []) for rule in RULES]
        table.add_row(attack or "none", *(f"{fmean(percents):.1f}" if percents else "" for percents in cells))
    Console().print(table)
    table = Table("rule", "updates", "s", "MB in memory", "MB on disk", title="a merge")
    for cost in costs:
        table.add_row(cost.rule, str(cost.updates), f"{cost.cpu_s:.2f}", f"{cost.peak_mb:.0f}", f"{cost.spool_mb:.0f}")
    Console().print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write accuracy over attackers here, as SVG")
    parser.add_argument("--quick", action="store_true", help="digits, two rounds, a small network; no limits")
    parser.add_argument("--fresh", action="store_true", help="forget runs that are kept in simulations")
    return parser.parse_args()


if __name__ == "__main__":
    main()
