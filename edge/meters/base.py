"""What every energy meter can say. Nothing above asks which board it is on."""

from enum import StrEnum
from typing import Protocol

from protocol.messages import EnergySource


class Accuracy(StrEnum):
    """How far a meter can be trusted."""

    RAIL = "rail"
    """The supply of the whole board, or the rails that make it up."""
    MODEL = "model"
    """No sensor: arithmetic and memory traffic times published energies; ranks, but is not what a battery loses."""


class Meter(Protocol):
    """A running total of energy.

    Attributes:
        name: as in birth and doctor.
        accuracy: how far to trust it.
        source: what records made with it say.
    """

    name: str
    accuracy: Accuracy
    source: EnergySource

    def read_mj(self) -> float:
        """Millijoules since the meter was opened; the difference of two readings is what a piece of work took."""
        ...

    def note_work(self, modelled_mj: float) -> None:
        """Learn of work just done and its modelled energy. A meter with a sensor has seen it already."""
        ...
