"""Figures as data: what is compared with what, and the limit it is held to.

Accuracies are in percent and their differences in points. A gap is taken seed by seed, since both runs of a pair start
from the same weights and the same deal; the figure is the mean, its spread the smallest and the largest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Final, Protocol

from evidence import Figure
from simulation.report import bits_per_parameter

from reproduce.results import Cell, Results

DIGITS: Final = 4


@dataclass(frozen=True)
class Bound:
    """A limit: `<=`, `>=` or `==` a number."""

    sense: str
    number: float

    def met(self, value: float) -> bool:
        """Whether a value keeps it; differences below the last digit that is written do not count."""
        value = round(value, DIGITS)
        if self.sense == "==":
            return value == self.number
        return value <= self.number if self.sense == "<=" else value >= self.number

    def __str__(self) -> str:
        return f"{self.sense} {self.number:g}"


def at_least(number: float) -> Bound:
    """The value may not be less."""
    return Bound(">=", number)


def at_most(number: float) -> Bound:
    """The value may not be more."""
    return Bound("<=", number)


class Spec(Protocol):
    """A figure that may be asked of results; None where a run that it needs is missing."""

    @property
    def name(self) -> str:
        """Of the figure."""

    def figure(self, results: Results) -> Figure | None:
        """The figure."""


@dataclass(frozen=True)
class Gap:
    """By how many points one accuracy lies above another, seed by seed."""

    name: str
    cell: Cell
    against: Cell
    bound: Bound | None = None
    note: str = ""

    def figure(self, results: Results) -> Figure | None:
        """Mean over the seeds that both have."""
        ours, theirs = results.accuracies(self.cell), results.accuracies(self.against)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        gaps = [ours[seed] - theirs[seed] for seed in seeds]
        accuracies = f"{_mean(ours, seeds):.2f} % against {_mean(theirs, seeds):.2f} %"
        return made(self.name, fmean(gaps), "points", self.bound, gaps, _notes(accuracies, self.note))


@dataclass(frozen=True)
class Range:
    """How far the seeds of one cell lie apart."""

    name: str
    cell: Cell
    bound: Bound | None = None
    note: str = ""

    def figure(self, results: Results) -> Figure | None:
        """Largest less smallest."""
        values = list(results.accuracies(self.cell).values())
        if len(values) < 2:
            return None
        note = _notes("accuracy " + ", ".join(f"{value:.2f} %" for value in values), self.note)
        return made(self.name, max(values) - min(values), "points", self.bound, values, note, spread=False)


@dataclass(frozen=True)
class LargestFall:
    """How far a curve ever falls as it goes on: the largest difference between a point and any later one."""

    name: str
    cells: Sequence[Cell]
    bound: Bound | None = None
    note: str = ""

    def figure(self, results: Results) -> Figure | None:
        """Of the curve of means; needs every point."""
        points = [list(results.accuracies(cell).values()) for cell in self.cells]
        if not all(points):
            return None
        falls = [fmean(before) - fmean(after) for before, after in combinations(points, 2)]
        seeds = min(map(len, points))
        return made(self.name, max(0.0, *falls), "points", self.bound, [0.0] * seeds, self.note, spread=False)


@dataclass(frozen=True)
class Examined:
    """A number that was measured on the final models.

    Attributes:
        name: of the figure.
        tier: of the runs.
        label: of the runs.
        number: takes what was examined to the number.
        unit: of the number.
        worst: which seed counts, `max` or `min`.
        bound: its limit.
        note: how it was measured.
    """

    name: str
    tier: str
    label: str
    number: Callable[[Any], float | None]
    unit: str
    worst: Callable[[Iterable[float]], float]
    bound: Bound | None = None
    note: str = ""

    def figure(self, results: Results) -> Figure | None:
        """The worst of the seeds."""
        found = (self.number(examined) for examined in results.examined(self.tier, self.label).values())
        values = [value for value in found if value is not None]
        if not values:
            return None
        return made(self.name, self.worst(values), self.unit, self.bound, values, self.note)


@dataclass(frozen=True)
class LinkBits:
    """Bits of all updates of a run, or of all its base models, for each parameter, device and round."""

    name: str
    tier: str
    label: str
    note: str = ""
    bound: Bound | None = None
    down: bool = False

    def figure(self, results: Results) -> Figure | None:
        """Mean over seeds."""
        outcomes = results.outcomes(self.tier, self.label).values()
        sizes = ((outcome, outcome.down_bytes if self.down else outcome.up_bytes) for outcome in outcomes)
        values = [bits_per_parameter(outcome.setup, size) for outcome, size in sizes]
        return made(self.name, fmean(values), "bits per parameter", self.bound, values, self.note) if values else None


def made(
    name: str,
    value: float,
    unit: str,
    bound: Bound | None,
    values: Sequence[float] = (),
    note: str = "",
    *,
    spread: bool = True,
) -> Figure:
    """A figure of the evidence document; `values` are those of the single runs."""
    return Figure(
        name,
        round(value, DIGITS),
        unit,
        None if bound is None else str(bound),
        None if bound is None else bound.met(value),
        max(1, len(values)),
        [round(min(values), DIGITS), round(max(values), DIGITS)] if spread and len(values) > 1 else None,
        note,
    )


def evaluate(specs: Iterable[Spec], results: Results, *, limits: bool) -> tuple[list[Figure], list[str]]:
    """Every figure there are runs for, and the names of the others.

    Args:
        specs: what is asked.
        results: what is kept.
        limits: whether to hold figures to their limits; short runs are not.
    """
    figures: list[Figure] = []
    omitted: list[str] = []
    for spec in specs:
        figure = spec.figure(results)
        if figure is None:
            omitted.append(spec.name)
        else:
            figures.append(figure if limits else _without_limit(figure))
    return figures, omitted


def _without_limit(figure: Figure) -> Figure:
    return Figure(f"quick.{figure.name}", figure.value, figure.unit, None, None, figure.of, figure.spread, figure.note)


def _mean(values: dict[int, float], seeds: Sequence[int]) -> float:
    return fmean(values[seed] for seed in seeds)


def _notes(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def each(limits: dict[int, float], more: float = 0.0) -> Iterator[tuple[int, Bound]]:
    """Widths and bounds on a gap, each lowered by `more` points."""
    for bits, number in limits.items():
        yield bits, at_least(round(number - more, 3))
