"""Bits of an update from its own range: as it shrinks, so do they.

L. Qu, S. Song, C.-Y. Tsui, "FedDQ: Communication-Efficient Federated Learning with Descending Quantization", GLOBECOM
2022, arXiv 2110.02291: every tensor takes b = ⌈log2(range/resolution)⌉ bits. That is quantization with a fixed step,
which each device does by itself (`protocol.codec.step`); where a range is below the step there is no floor of two bits.
"""

from dataclasses import dataclass
from typing import Final

from aggregator.rates.base import Rates, Seen, step_recipe

RESOLUTION: Final = 0.01
"""In a public implementation."""


@dataclass(frozen=True)
class FedDq:
    """Descending quantization of updates; models come down as the job says.

    Attributes:
        resolution: the step.
        coder: `+rc`, or empty.
        downlink: of models.
    """

    resolution: float
    coder: str
    downlink: str

    def rates(self, seen: Seen) -> Rates:
        """A constant step; its bits follow from the updates."""
        recipe = step_recipe(self.resolution, self.coder)
        return Rates((recipe,) * seen.devices, self.downlink, f"updates in steps of {self.resolution:g}")
