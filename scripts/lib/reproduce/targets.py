"""What a run takes until it is first near what plain averaging at fp32 comes to."""

from typing import Final

from simulation.setup import Outcome

FLOAT: Final = "fp32"
POINTS: Final = 1.0
"""Below FedAvg at fp32 that count as having got there."""


def target(plain: Outcome) -> float:
    """The accuracy that counts, from the run of plain averaging."""
    return plain.mean(FLOAT) - POINTS / 100


def round_at(outcome: Outcome, accuracy: float) -> int | None:
    """The first judged round that reaches an accuracy; None for none."""
    first = outcome.setup.rounds - outcome.setup.judged_rounds + 1
    return next((first + place for place, value in enumerate(outcome.accuracy[FLOAT]) if value >= accuracy), None)
