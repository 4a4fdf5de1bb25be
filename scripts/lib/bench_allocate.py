"""Allocating a thousand devices at once, against the same program given to HiGHS whole, and against greed.

    scripts/bench/allocate                                         some minutes
    scripts/bench/allocate --quick                                 200 devices
    scripts/bench/allocate --json docs/results/bench/allocate.json

What is timed is everything from what is known of the devices to a decision with its sentence for each of them, in CPU
time of one thread on one core, and on the clock. The fleet's energy is limited to a third of what lies between the
least and the most that its devices could use, so that no device can be decided for alone; three in five have budgets of
their own as well, two in five a limit on latency. Every repeat is another fleet.

Rivals in the same turn: `whole`, the plain program, one variable for each device and precision, through
`scipy.optimize.milp`; and `greedy`, which raises precisions step by step where a point of accuracy takes the least
energy, until nothing fits. Ratios are medians over turns. On small fleets the program is compared with trying
everything. Memory is the peak of the resident set over what the process held before, in a process of its own; it
is read from /proc, so this needs Linux.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import quantiles
from typing import Final

from evidence import Figure, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

from aggregator.allocate import Program
from aggregator.allocate.accuracy import UNIT, expected
from aggregator.allocate.choices import Choice, Groups
from aggregator.allocate.limits import Limits
from aggregator.allocate.options import Common, Member, Option, options_of
from aggregator.allocate.plain import brute_force
from aggregator.allocate.program import solve, whole
from aggregator.allocate.ways import Way
from protocol.networks import parse
from protocol.precision import Precision

NETWORK: Final = parse("resnet18:width=1,stem=3x3,input=3x32x32,classes=10")
PRECISIONS: Final = tuple(Precision(bits, 8) for bits in (8, 6, 4, 3, 2, 1))
DEVICES: Final = 1000
QUICK_DEVICES: Final = 200
REPEATS: Final = 9
MAX_S: Final = 2.0
WHOLE_LIMIT_S: Final = 60.0
"""The plain program may take this long before it counts as not proven."""
SMALL_FLEETS: Final = 200
SMALL_DEVICES: Final = 5
TIGHT: Final = 1 / 3
ENERGY: Final = "j"
WAYS: Final = (
    *(Way("uniform:8", epochs, 11_300_000, 0.0001) for epochs in (1, 2)),
    *(Way("eden:2", epochs, 2_900_000, 0.133) for epochs in (1, 2)),
    *(Way("sign", epochs, 1_500_000, 0.36) for epochs in (1, 2)),
)
"""What an update of the network takes by each recipe, and its error, for the figures that choose these as well."""


RATED: Final = dict(
    zip(map(str, PRECISIONS), ((0.9137,), (0.9131,), (0.9118,), (0.9089,), (0.9042,), (0.8914,)), strict=True)
)
"""As exports might have been: differences of no common step, which are the harder ones to prove anything of."""


@dataclass
class Turns:
    """What was measured, a value a turn."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    solve_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    over_whole: list[float] = field(default_factory=list)
    greedy_lost: list[float] = field(default_factory=list)
    proven: int = 0
    whole_proven: int = 0
    equal: int = 0
    ways_s: list[float] = field(default_factory=list)
    ways_gap: list[float] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began_s = time.perf_counter()
    console = Console(stderr=True)
    devices = QUICK_DEVICES if arguments.quick else DEVICES
    turns = Turns()
    Program().choose(*fleet(20, 0))  # HiGHS and the network's tables are loaded
    for seed in track(range(arguments.repeats), "taking turns", console=console):
        take_turn(turns, devices, seed)
    agree = sum(agrees(seed) for seed in track(range(SMALL_FLEETS), "trying everything", console=console))
    with console.status("memory"):
        peak_mb = memory_mb(devices)
    figures = list(_figures(turns, devices, agree, peak_mb))
    show(figures, devices)
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/allocate", figures, wall_s=wall_s, packages=("numpy", "scipy"))
    sys.exit(any(figure.met is False for figure in figures))


def fleet(devices: int, seed: int, ways: tuple[Way, ...] = (Way("sign", 1),)) -> tuple[Common, list[Member]]:
    """Boards of three kinds, measured or not, from a few inferences a day to a hundred thousand."""
    draw = random.Random(seed)
    common = Common(NETWORK, expected(PRECISIONS, RATED), mean_samples=300.0)
    if len(ways) > 1:
        common = replace(common, rounds_per_day=4.0, uplink_mj=lambda count: 4e-5 * count)
    members = [_member(draw, common, f"pi-{index:04}", ways) for index in range(devices)]
    options = [_allowed(common, member) for member in members]
    most = sum(max(option.j_per_day for option in each) for each in options)
    least = sum(min(option.j_per_day for option in each) for each in options)
    return replace(common, j_per_day=least + TIGHT * (most - least)), members


def _member(draw: random.Random, common: Common, name: str, ways: tuple[Way, ...]) -> Member:
    board = draw.choice((40.0, 120.0, 300.0))
    daily = round(draw.lognormvariate(8.5, 1.3))
    costs = {
        name: board * inference_mj * draw.uniform(0.95, 1.05)
        for name, inference_mj in common.modelled_mj.items()
        if draw.random() < 0.8
    }
    latency_ms = {str(each): draw.uniform(5, 30) for each in PRECISIONS if draw.random() < 0.8}
    narrowest_j = max(costs.values(), default=board * max(common.modelled_mj.values())) * daily / 1000
    limits = Limits(
        narrowest_j * draw.uniform(0.3, 1.2) if draw.random() < 0.6 else None,
        25.0 if draw.random() < 0.4 else None,
    )
    samples = round(draw.lognormvariate(5.5, 0.6))
    return Member(name, PRECISIONS, daily, limits, costs, latency_ms, samples, ways=ways)


def _allowed(common: Common, member: Member) -> list[Option]:
    options = options_of(common, member)
    allowed = [option for option in options if not member.limits.broken(option.needs)]
    return allowed or [min(options, key=lambda option: option.j_per_day)]


def problem(common: Common, members: Sequence[Member]) -> tuple[Groups, dict[str, float]]:
    """The program behind a fleet, for the rivals."""
    groups = [
        [Choice(round(option.gain / UNIT), {ENERGY: option.j_per_day}) for option in _allowed(common, member)]
        for member in members
    ]
    assert common.j_per_day is not None
    return groups, {ENERGY: common.j_per_day}


def take_turn(turns: Turns, devices: int, seed: int) -> None:
    """One fleet: ours, then both rivals, then the larger program with six ways to take part for each precision."""
    common, members = fleet(devices, seed)
    begin_cpu_s, begin_s = time.process_time(), time.perf_counter()
    decisions = Program().choose(common, members)
    turns.cpu_s.append(time.process_time() - begin_cpu_s)
    turns.wall_s.append(time.perf_counter() - begin_s)
    turns.proven += bool(next(each.inputs["program"]["proven"] for each in decisions if each.inputs["program"]))

    groups, at_most = problem(common, members)
    begin_cpu_s = time.process_time()
    ours = solve(groups, at_most)
    turns.solve_s.append(time.process_time() - begin_cpu_s)
    begin_cpu_s = time.process_time()
    theirs = whole(groups, at_most, {}, WHOLE_LIMIT_S)
    turns.whole_s.append(time.process_time() - begin_cpu_s)
    turns.over_whole.append(turns.whole_s[-1] / turns.solve_s[-1])
    turns.whole_proven += theirs.proven
    turns.equal += ours.worth == theirs.worth
    turns.greedy_lost.append(100 * UNIT * (ours.worth - greedy(groups, at_most[ENERGY])) / devices)

    common, members = fleet(devices, seed, WAYS)
    groups, at_most = problem(common, members)
    begin_cpu_s = time.process_time()
    found = solve(groups, at_most)
    turns.ways_s.append(time.process_time() - begin_cpu_s)
    turns.ways_gap.append((found.bound - found.worth) / abs(found.bound))


def greedy(groups: Groups, limit: float) -> int:
    """The worth of raising, from the least energy, whoever's step up is worth most for its energy."""
    at = [min(range(len(group)), key=lambda index: group[index].uses[ENERGY]) for group in groups]
    left = limit - sum(group[index].uses[ENERGY] for group, index in zip(groups, at, strict=True))
    steps = sorted(
        (
            ((choice.worth - group[at[place]].worth) / max(1e-12, _more(group, at[place], index)), place, index)
            for place, group in enumerate(groups)
            for index, choice in enumerate(group)
            if choice.worth > group[at[place]].worth
        ),
        reverse=True,
    )
    for _, place, index in steps:
        group = groups[place]
        more = _more(group, at[place], index)
        if group[index].worth > group[at[place]].worth and more <= left:
            at[place], left = index, left - more
    return sum(group[index].worth for group, index in zip(groups, at, strict=True))


def _more(group: Sequence[Choice], before: int, after: int) -> float:
    return group[after].uses[ENERGY] - group[before].uses[ENERGY]


def agrees(seed: int) -> bool:
    """Whether a small fleet gains what trying everything finds."""
    groups, at_most = problem(*fleet(SMALL_DEVICES, seed))
    return solve(groups, at_most).worth == brute_force(groups, at_most, {}).worth


def memory_mb(devices: int) -> float:
    """Megabytes that choosing takes at its peak, over what the process held once everything was imported."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (devices,))


def _peak_mb(devices: int) -> float:
    common, members = fleet(devices, 0)
    Program().choose(*fleet(20, 0))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts over from what is held now
    before_kb = _status_kb("VmRSS")
    Program().choose(common, members)
    return (_status_kb("VmHWM") - before_kb) / 1024


def _status_kb(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1])


def _figures(turns: Turns, devices: int, agree: int, peak_mb: float) -> Iterator[Figure]:
    context = f"{devices} devices × {len(PRECISIONS)} precisions, {NETWORK.spec}, a limit on the fleet's energy"
    repeats = len(turns.cpu_s)

    def spread(name: str, values: list[float], unit: str, most: float | None, note: str) -> Figure:
        low, middle, high = quantiles(values, n=4) if len(values) > 1 else values * 3
        limit, met = (f"< {most:g}", max(values) < most) if most else (None, None)
        rounded = [round(low, 6), round(high, 6)]
        return Figure(name, round(middle, 6), unit, limit, met, len(values), rounded, note)

    cpu = f"{context}; one core, CPU time from what is known of the devices to their sentences; the worst counts"
    yield spread("choose.cpu", turns.cpu_s, "s", MAX_S, cpu)
    yield spread(
        "choose.wall", turns.wall_s, "s", None, "the same on the clock, other programs on the machine included"
    )
    yield Figure(
        "choose.proven", turns.proven, "fleets", f"= {repeats}", turns.proven == repeats, repeats, None, context
    )
    yield spread("solve.cpu", turns.solve_s, "s", MAX_S, "the program alone")
    note = (
        f"CPU time of scipy.optimize.milp on the whole program over ours; {turns.whole_proven} of {repeats} proven in"
    )
    yield spread("whole.over_solve", turns.over_whole, "ratio", None, f"{note} {WHOLE_LIMIT_S:g} s")
    yield spread("whole.cpu", turns.whole_s, "s", None, "that program's time")
    proven = turns.whole_proven
    same = turns.equal >= proven
    yield Figure("whole.equal", turns.equal, "fleets", f">= {proven}", same, repeats, None, "worth the same as ours")
    lost = "points of accuracy a device that greed loses against the best"
    yield spread("greedy.lost", turns.greedy_lost, "points", None, lost)
    note = f"{SMALL_DEVICES} devices × {len(PRECISIONS)} precisions, every selection tried"
    met = agree == SMALL_FLEETS
    yield Figure("brute_force.agrees", agree, "fleets", f"= {SMALL_FLEETS}", met, SMALL_FLEETS, None, note)
    note = f"{devices} devices × {len(PRECISIONS)} precisions × {len(WAYS)} recipes and epochs, the program alone"
    yield spread("ways.cpu", turns.ways_s, "s", None, note)
    yield spread(
        "ways.gap", turns.ways_gap, "of the bound", None, "0 is proven; what the best could be better by at most"
    )
    yield Figure(
        "choose.memory", round(peak_mb, 1), "MB", None, None, 1, None, f"{context}; peak over what was held before"
    )


def show(figures: Sequence[Figure], devices: int) -> None:
    """The table."""
    table = Table("figure", "value", "unit", "limit", "met", "spread")
    for figure in figures:
        met = "" if figure.met is None else "yes" if figure.met else "no"
        spread = "" if figure.spread is None else "–".join(f"{value:.3g}" for value in figure.spread)
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, figure.limit or "", met, spread)
    table.caption = f"{devices} devices × {len(PRECISIONS)} precisions; medians over turns, one core"
    Console().print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_DEVICES} devices")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns (default {REPEATS})")
    return parser.parse_args()


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    main()
