"""What keeps a device from working for the fleet just now. Each gate is one rule; the first closed one counts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import psutil

from edge.config import QuietHours
from edge.lifecycle import Lifecycle
from protocol.messages import DeclineReason

MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Closed:
    """Why no work is taken on, and when to ask again.

    Attributes:
        state: what the agent's lifecycle becomes while it has nothing else to do.
        reason: what an offer is declined with.
        detail: the same for people, with the values.
        retry_after_s: when the gate may be open again.
    """

    state: Lifecycle
    reason: DeclineReason
    detail: str
    retry_after_s: float


class Gate(Protocol):
    """One rule."""

    def check(self) -> Closed | None:
        """None while work may be taken on."""
        ...


def first_closed(gates: Iterable[Gate]) -> Closed | None:
    """The first gate that is closed."""
    return next((closed for gate in gates if (closed := gate.check()) is not None), None)


@dataclass(frozen=True, slots=True)
class QuietHoursGate:
    """Closed in the quiet hours, by the device's own local time."""

    hours: QuietHours
    now: Callable[[], datetime]

    def check(self) -> Closed | None:
        """Closed until the hours end, to the minute."""
        now = self.now()
        if not self.hours.contains(now.time()):
            return None
        end = now.replace(hour=self.hours.end.hour, minute=self.hours.end.minute, second=0, microsecond=0)
        left_s = (end - now).total_seconds() % (24 * 60 * MINUTE_S)
        detail = f"quiet hours {self.hours.begin:%H:%M}-{self.hours.end:%H:%M}"
        return Closed(Lifecycle.SLEEPING, DeclineReason.SLEEPING, detail, left_s)


@dataclass(frozen=True, slots=True)
class TemperatureGate:
    """Closed above `max_c`. A device without a sensor is never too hot."""

    max_c: float
    read_c: Callable[[], float | None]

    def check(self) -> Closed | None:
        """Closed for two minutes at a time, about what a passive heat sink needs."""
        now_c = self.read_c()
        if now_c is None or now_c <= self.max_c:
            return None
        detail = f"{now_c:.0f} °C, expected at most {self.max_c:.0f} °C"
        return Closed(Lifecycle.THROTTLED, DeclineReason.THROTTLED, detail, 2 * MINUTE_S)


@dataclass(frozen=True, slots=True)
class BatteryGate:
    """Closed below `min_percent` when unplugged. A device without a battery is plugged in."""

    min_percent: float
    read_percent: Callable[[], float | None]

    def check(self) -> Closed | None:
        """Closed for ten minutes at a time."""
        percent = self.read_percent()
        if percent is None or percent >= self.min_percent:
            return None
        detail = f"battery at {percent:.0f} %, expected at least {self.min_percent:.0f} %"
        return Closed(Lifecycle.THROTTLED, DeclineReason.THROTTLED, detail, 10 * MINUTE_S)


def read_temperature_c() -> float | None:
    """The hottest sensor of the board in °C, None where there is none."""
    read = getattr(psutil, "sensors_temperatures", None)  # Linux and FreeBSD only
    sensors = read() if read is not None else {}
    return max((sensor.current for group in sensors.values() for sensor in group), default=None)


def read_battery_percent() -> float | None:
    """The charge of an unplugged battery in percent, None on mains power."""
    read = getattr(psutil, "sensors_battery", None)
    battery = read() if read is not None else None
    return None if battery is None or battery.power_plugged else float(battery.percent)
