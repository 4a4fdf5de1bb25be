"""The meter of a device without one: it adds up what `protocol.energy` says the work must have taken."""

from typing import Final

from edge.meters.base import Accuracy, Description, Passive, Reading

DESCRIPTION: Final = Description("none", Accuracy.MODEL, 0.0, 0.0, "arithmetic and memory traffic of noted work alone")


class ModelledMeter(Passive):
    """Counts noted work alone; idle current is not in it."""

    description = DESCRIPTION

    def __init__(self) -> None:
        self._total_mj = 0.0

    def read(self) -> Reading:
        """Millijoules of all work noted."""
        return Reading(self._total_mj)

    def note_work(self, modelled_mj: float) -> None:
        """Add the work."""
        self._total_mj += modelled_mj
