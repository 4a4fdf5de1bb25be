"""Levels that rise as the loss falls.

D. Jhunjhunwala, A. Gadhikar, G. Joshi, Y. C. Eldar, "Adaptive Quantization of Model Updates for Communication-Efficient
Federated Learning", ICASSP 2021, arXiv 2102.04487. With s₀ levels in the first round and loss F,

    s_k = ⌈ s₀·√(F(w₀)/F(w_k)) ⌉        b_k = ⌈ log2(s_k + 1) ⌉ bits
"""

from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Final

from aggregator.rates.base import Rates, Seen
from aggregator.rates.water_filling import HIGHEST, LOWEST

LEVELS: Final = 2
"""In the first round."""


@dataclass(frozen=True)
class AdaQuantFl:
    """Rising quantization of updates; models come down as the job says.

    Attributes:
        levels: in the first round.
        coder: `+rc`, or empty.
        downlink: of models.
    """

    levels: int
    coder: str
    downlink: str

    def rates(self, seen: Seen) -> Rates:
        """From the first and the last loss that devices told."""
        ratio = seen.loss[0] / seen.loss[-1] if seen.loss and seen.loss[-1] > 0 else 1.0
        levels = ceil(self.levels * sqrt(max(ratio, 0.0)))
        reason = f"{levels} levels, the loss having fallen to 1/{ratio:.3g}"
        return Rates((f"uniform:{bits_of(levels)}{self.coder}",) * seen.devices, self.downlink, reason)


def bits_of(levels: int) -> int:
    """Bits that tell `levels` and zero apart, as far as `uniform` has them."""
    return min(HIGHEST, max(LOWEST, ceil(log2(levels + 1))))
