"""The meter of a device without one: it adds up what `protocol.energy` says the work must have taken."""

from edge.meters.base import Accuracy
from protocol.messages import EnergySource


class ModelledMeter:
    """Counts noted work alone; idle current is not in it."""

    name = "none"
    accuracy = Accuracy.MODEL
    source = EnergySource.MODELLED

    def __init__(self) -> None:
        self._total_mj = 0.0

    def read_mj(self) -> float:
        """Millijoules of all work noted."""
        return self._total_mj

    def note_work(self, modelled_mj: float) -> None:
        """Add the work."""
        self._total_mj += modelled_mj
