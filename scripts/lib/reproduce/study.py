"""What a published system needs to be run again here: its runs, what to measure on them, and what to show."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evidence import Figure

from aggregator.model import GlobalModel
from reproduce.figures import Bound, Spec, made
from reproduce.results import Results
from reproduce.run import Run
from reproduce.tables import Table

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Fact:
    """A figure that needs no run."""

    name: str
    measure: Callable[[], float]
    unit: str
    bound: Bound | None
    note: str

    def figure(self, _: Results) -> Figure:
        """Measured now."""
        return made(self.name, self.measure(), self.unit, self.bound, note=self.note)


class Study(ABC):
    """One published system.

    Attributes:
        name: of the preset.
        title: of the report.
        published: where it was published, and which figures of it are known.
        tiers: those it has runs on.
    """

    tiers: Sequence[str] = ("f1", "f2", "smoke")
    name: str
    title: str
    published: str

    @abstractmethod
    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """The runs of a tier with one seed."""

    @abstractmethod
    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:
        """What there is to measure on the final model of a run, as plain values."""

    @abstractmethod
    def specs(self) -> Sequence[Spec]:
        """Every figure, with its limit."""

    @abstractmethod
    def tables(self, results: Results) -> Iterable[Table]:
        """Tables of what is kept; those without a row are not shown."""

    @abstractmethod
    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """File name without suffix, and SVG text."""

    def planned(self, tiers: Iterable[str] = (), seeds: Iterable[int] = SEEDS) -> list[Run]:
        """The runs of some tiers, or all, one seed after the other, so that an early stop leaves whole comparisons."""
        return [run for tier in tiers or self.tiers for seed in seeds for run in self.runs(tier, seed)]
