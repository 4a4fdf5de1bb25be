"""A board's samples in time, for a trace."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from edge.meters.base import MeterError
from edge.meters.choose import parse_meter
from edge.meters.sampled import PowerMeter
from edge.meters.sensor import Sensor
from edge.meters.trace import Sample

DIGITS: Final = 6
"""Of a time, microseconds, and of a power, nanowatts: below what any clock or sensor here tells apart."""


def power_sensor(spec: str) -> Sensor[float]:
    """The first sensor of power that a setting gives.

    Raises:
        MeterError: there is none: nothing is here, or what is here says no power (counters, traces, models).
        ValueError: there is no such setting.
    """
    problems = []
    for find in parse_meter(spec):
        try:
            meter = find()
        except MeterError as error:
            problems.append(str(error))
            continue
        if isinstance(meter, PowerMeter):
            return meter.sensor
        problems.append(f"meter {meter.description.name}: says no power in milliwatts, so it has no trace")
    raise MeterError("; ".join(problems))


def record(
    sensor: Sensor[float],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Sample]:
    """Ask at the sensor's rate for ever; failures are samples too, and the sensor is opened again after each.

    Raises:
        MeterError: it does not answer even once.
    """
    asked = _Asked(sensor, monotonic)
    period_s, began_s, number = 1.0 / sensor.description.rate_hz, monotonic(), 0
    try:
        while True:
            said = asked.once()
            if said.mw is None and number == 0:
                raise MeterError(said.error)
            yield said
            number += 1
            sleep(max(0.0, began_s + number * period_s - monotonic()))
    finally:
        sensor.close()


class _Asked:
    """A sensor that is asked by the clock of its first answer."""

    def __init__(self, sensor: Sensor[float], monotonic: Callable[[], float]) -> None:
        self._sensor, self._monotonic = sensor, monotonic
        self._open, self._first_s = False, -1.0

    def once(self) -> Sample:
        """One sample, or what was wrong."""
        try:
            if not self._open:
                self._sensor.open()
                self._open = True
            asked_s = self._monotonic()
            mw = self._sensor.read()
        except (MeterError, OSError, ValueError) as error:
            self._sensor.close()
            self._open = False
            return Sample(self._since_first(self._monotonic()), error=str(error))
        return Sample(self._since_first((asked_s + self._monotonic()) / 2), round(mw, DIGITS))

    def _since_first(self, at_s: float) -> float:
        if self._first_s < 0.0:
            self._first_s = at_s
        return round(at_s - self._first_s, DIGITS)
