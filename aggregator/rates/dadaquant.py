"""Levels that double whenever the loss stops falling, and that follow each device's share of the pictures.

R. Hönig, Y. Zhao, R. Mullins, "DAdaQuant: Doubly-adaptive quantization for communication-efficient Federated Learning",
ICML 2022, arXiv 2111.00465. With running loss G (ψ = 0.9), q doubles once G is not below what it was φ rounds ago, φ a
tenth of all rounds. With shares w of the pictures, device i has

    q_i = √(a/b)·w_i^(2/3)        a = Σ w_j^(2/3)        b = Σ w_j²/q²
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from aggregator.rates.adaquantfl import bits_of
from aggregator.rates.base import Rates, Seen
from aggregator.rates.water_filling import HIGHEST

FIRST_LEVELS: Final = 1
SMOOTHING: Final = 0.9
PATIENCE: Final = 0.1
"""Of all rounds."""
HORIZON: Final = 50
"""Rounds that count as all where a job goes on for ever."""


@dataclass(frozen=True)
class DAdaQuant:
    """Doubly adaptive quantization of updates; models come down as the job says.

    Attributes:
        levels: in the first round.
        coder: `+rc`, or empty.
        downlink: of models.
    """

    levels: int
    coder: str
    downlink: str

    def rates(self, seen: Seen) -> Rates:
        """Levels for all from the loss so far, then each device's own."""
        levels = doubled(self.levels, seen.loss, max(1, round(PATIENCE * (seen.rounds or HORIZON))))
        own = [bits_of(round(q)) for q in by_share(levels, seen.shares)]
        reason = f"{levels} levels, {min(own)} to {max(own)} bits by how many pictures a device has"
        return Rates(tuple(f"uniform:{bits}{self.coder}" for bits in own), self.downlink, reason)


def doubled(levels: int, loss: Sequence[float], patience: int) -> int:
    """Levels after the losses of all rounds so far, up to 2⁸ − 1."""
    running: list[float] = []
    changed = 0
    for number, value in enumerate(loss):
        running.append(value if not running else SMOOTHING * running[-1] + (1 - SMOOTHING) * value)
        waited = number - changed
        if waited >= patience and running[number] >= running[number - patience]:
            levels, changed = min(2 * levels, 2**HIGHEST - 1), number
    return levels


def by_share(levels: int, shares: Sequence[float]) -> list[float]:
    """Each device's levels: the same error in all as if everyone had `levels`, for fewer bits."""
    a = sum(share ** (2 / 3) for share in shares)
    b = sum(share**2 for share in shares) / levels**2
    return [sqrt(a / b) * share ** (2 / 3) for share in shares]
