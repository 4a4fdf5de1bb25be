"""A meter made of a sensor: one thread asks it at its rate, a tally adds up what it says.

The cost is that of the questions: each board's file says what one takes. `edge.measure` compares a run with the meter
closed where that matters.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from edge.meters.base import MeterError, Reading
from edge.meters.sensor import Sensor
from edge.meters.tally import MAX_GAP_PERIODS, Tally, Trapezoid

Said = TypeVar("Said")

RETRY_S: Final = 1.0
"""How often a sensor that fails is tried again, at most: opening one may cost more than asking it."""


class SampledMeter(Generic[Said]):
    """Asks `sensor` at its rate while the block runs, and once more at each `read`.

    So both edges of a span are samples of their own, and a span shorter than the sampling period is still measured, as
    coarsely as two samples can. A failure or nonsense is a hole in the total until the sensor answers again.

    Args:
        sensor: what to ask; closed and opened again after each failure.
        tally: adds up.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, sensor: Sensor[Said], tally: Tally[Said], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.description = sensor.description
        self._sensor, self._tally, self._monotonic = sensor, tally, monotonic
        self._open = self._failing = False
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"meter {self.description.name}", daemon=True)

    def __enter__(self) -> Self:
        """Open the sensor and begin to ask.

        Raises:
            MeterError: it does not answer.
        """
        self.read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._close()

    def read(self) -> Reading:
        """Ask once more, and say the total."""
        with self._lock:
            self._ask()
            return Reading(self._tally.total_mj, self._tally.holes)

    def note_work(self, modelled_mj: float) -> None:
        """Nothing: the sensor has seen it."""

    def _run(self) -> None:
        period_s = 1.0 / self.description.rate_hz
        while not self._stop.wait(max(period_s, RETRY_S) if self._failing else period_s):
            with suppress(MeterError), self._lock:
                self._ask()

    def _ask(self) -> None:
        """One question, dated by the middle of the time that its answer took."""
        try:
            if not self._open:
                self._sensor.open()
                self._open = True
            asked_s = self._monotonic()
            said = self._sensor.read()
            self._tally.add((asked_s + self._monotonic()) / 2, said)
        except (MeterError, OSError, ValueError) as error:
            self._failing = True
            self._tally.interrupt()
            self._close()
            if isinstance(error, MeterError):
                raise
            raise MeterError(f"meter {self.description.name}: {error}") from error
        self._failing = False

    def _close(self) -> None:
        self._open = False
        self._sensor.close()


class PowerMeter(SampledMeter[float]):
    """A meter of a sensor that says milliwatts.

    Attributes:
        sensor: the same, for recording what it says.
    """

    def __init__(self, sensor: Sensor[float], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        what = sensor.description
        tally = Trapezoid(what.name, sensor.max_mw, MAX_GAP_PERIODS / what.rate_hz)
        super().__init__(sensor, tally, monotonic=monotonic)
        self.sensor = sensor
