"""What was run and is kept: one small JSON file per run, and a view of them by tier, label and seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from simulation.setup import Outcome

from edge.files import write_atomic
from reproduce.run import Run

FINAL: Final = "final "
"""Before a precision: judged at the last round alone, to compare with what was examined on a final model."""


@dataclass(frozen=True)
class Cell:
    """One accuracy: of the runs of a tier with a label, judged at a precision (or as `Kept.accuracy` names it)."""

    tier: str
    label: str
    judged: str


@dataclass(frozen=True)
class Kept:
    """What is kept of one run.

    Attributes:
        outcome: of the simulation.
        examined: what the study measured on the final model, by name; None before it did. Accuracies that it
            measured lie under `accuracy`, by a name that is no precision of the outcome.
    """

    outcome: Outcome
    examined: Mapping[str, Any] | None

    def accuracy(self, judged: str) -> float | None:
        """Accuracy as a fraction: mean of the last rounds; of the final model where that is asked for or examined."""
        if judged.startswith(FINAL):
            return self.outcome.accuracy.get(judged.removeprefix(FINAL), (None,))[-1]
        if judged in self.outcome.accuracy:
            return self.outcome.mean(judged)
        return (self.examined or {}).get("accuracy", {}).get(judged)


def keep(folder: Path, run: Run, kept: Kept) -> None:
    """Write what is kept of a run; complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"outcome": kept.outcome.to_json(), "examined": kept.examined}
    write_atomic(folder / f"{run.name}.json", (json.dumps(document, ensure_ascii=False) + "\n").encode(), mode=0o644)


def load(folder: Path, run: Run) -> Kept | None:
    """What is kept of a run, None if there is nothing or it belongs to another setup.

    Raises:
        ValueError: the file is not one of `keep`; the message names it.
    """
    path = folder / f"{run.name}.json"
    try:
        document = json.loads(path.read_text())
        kept = Kept(Outcome.from_json(document["outcome"]), document["examined"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error!r}: expected what a run left; remove it to run again") from error
    return kept if kept.outcome.setup == run.setup else None


@dataclass(frozen=True)
class Results:
    """The runs of a study and what is kept of them.

    Attributes:
        runs: all that were planned, in the study's order.
        kept: by run name.
    """

    runs: Sequence[Run]
    kept: Mapping[str, Kept] = field(repr=False)

    @classmethod
    def read(cls, folder: Path, runs: Sequence[Run]) -> "Results":
        """Everything that is kept of `runs`."""
        found = {run.name: load(folder, run) for run in runs}
        return cls(runs, {name: kept for name, kept in found.items() if kept is not None})

    @property
    def missing(self) -> list[Run]:
        """Planned runs of which nothing is kept."""
        return [run for run in self.runs if run.name not in self.kept]

    def of(self, tier: str, label: str) -> Iterator[tuple[int, Kept]]:
        """Seed and what is kept, of every finished run with a label."""
        for run in self.runs:
            if (run.tier, run.label) == (tier, label) and run.name in self.kept:
                yield run.seed, self.kept[run.name]

    def outcomes(self, tier: str, label: str) -> dict[int, Outcome]:
        """Outcome by seed, of the same."""
        return {seed: kept.outcome for seed, kept in self.of(tier, label)}

    def accuracies(self, cell: Cell) -> dict[int, float]:
        """Accuracy in percent by seed."""
        found = ((seed, kept.accuracy(cell.judged)) for seed, kept in self.of(cell.tier, cell.label))
        return {seed: 100.0 * value for seed, value in found if value is not None}

    def examined(self, tier: str, label: str, *keys: str) -> dict[int, Any]:
        """What was examined under nested keys, by seed."""
        values: dict[int, Any] = {}
        for seed, kept in self.of(tier, label):
            value: Any = kept.examined
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                values[seed] = value
        return values
