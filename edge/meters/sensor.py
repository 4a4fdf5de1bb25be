"""What a board's file gives: a sensor that can be asked. `sampled` makes a meter of it."""

from typing import Protocol, TypeVar

from edge.meters.base import Description

Said_co = TypeVar("Said_co", covariant=True)


class Sensor(Protocol[Said_co]):
    """Something that says a value when asked: milliwatts as a float, or energy counters in microjoules.

    Opened before the first question and again after each failure, so whatever may have changed while it was away (a
    number in sysfs, a register that lost its supply) is looked up or written anew by `open`.
    """

    @property
    def description(self) -> Description:
        """What the meter made of it is; `rate_hz` is how often it is asked."""
        ...

    @property
    def max_mw(self) -> float:
        """More than this cannot be: beyond what the board, its supply or the sensor itself can do."""
        ...

    def open(self) -> None:
        """Make ready.

        Raises:
            MeterError, OSError, ValueError: it is not there, or not what it should be; the message names it.
        """
        ...

    def read(self) -> Said_co:
        """What it says now. Answers or fails within two seconds.

        Raises:
            MeterError, OSError, ValueError: it does not answer, or what it says cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go. Does nothing when it is not open, and never raises."""
        ...
