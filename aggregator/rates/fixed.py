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
        return Rates((self.recipe,) * seen.devices, self.downlink, f"{self.recipe} up and {self.downlink} down, fixed")
