"""What every energy meter can say. Nothing above asks which board it is on."""

from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from protocol.messages import EnergySource


class MeterError(Exception):
    """A meter is not there, or tells what cannot be; the message names it, the value and what was expected."""


class Absent(MeterError):
    """There is no such meter on this device; the message says what was looked for and where."""


class Accuracy(StrEnum):
    """How far a meter can be trusted."""

    RAIL = "rail"
    """The supply of the whole board, or the rails that make it up."""
    PACKAGE = "package"
    """The processor alone, by its own counter."""
    WALL = "wall"
    """The mains, with the losses of the power supply."""
    MODEL = "model"
    """No sensor: arithmetic and memory traffic times published energies; ranks, but is not what a battery loses."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a meter is.

    Attributes:
        name: as in birth, doctor and reports.
        accuracy: how far to trust it.
        error_percent: of a reading, by the data sheet or the source that the meter's file names; 0 for a model.
        rate_hz: new readings a second, 0 for a model.
        includes: what its joules are the joules of.
    """

    name: str
    accuracy: Accuracy
    error_percent: float
    rate_hz: float
    includes: str

    @property
    def source(self) -> EnergySource:
        """What records made with it say."""
        return EnergySource.MODELLED if self.accuracy is Accuracy.MODEL else EnergySource.MEASURED


@dataclass(frozen=True, slots=True)
class Reading:
    """A running total.

    Attributes:
        total_mj: millijoules since the meter was opened.
        holes: how often it was interrupted since then; energy across a hole is not known.
    """

    total_mj: float
    holes: int = 0


class Meter(Protocol):
    """A running total of energy, from entering the block to leaving it.

    Attributes:
        description: what it is.
    """

    description: Description

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def read(self) -> Reading:
        """The total by now. For any thread.

        Raises:
            MeterError: it does not answer, or nonsense. A later reading that succeeds has one more hole.
        """
        ...

    def note_work(self, modelled_mj: float) -> None:
        """Learn of work just done and its modelled energy. A meter with a sensor has seen it already."""
        ...


class Passive:
    """What a meter that only answers does with the rest: nothing to open or to close, and all work seen already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def note_work(self, modelled_mj: float) -> None:
        """Nothing: it was there."""
