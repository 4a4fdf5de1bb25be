"""The job's own recipe and downlink, round after round."""

from dataclasses import dataclass

from aggregator.rates.base import Rates, Seen


@dataclass(frozen=True)
class Fixed:
    """What is not adapted.

    Attributes:
        recipe: of updates.
        downlink: of models.
    """

    recipe: str
    downlink: str

    def rates(self, seen: Seen) -> Rates:
        """The same in every round."""
        return self.every(seen.devices)

    def every(self, devices: int) -> Rates:
        """Of any round with so many devices."""
        return Rates((self.recipe,) * devices, self.downlink, f"{self.recipe} up and {self.downlink} down, fixed")
