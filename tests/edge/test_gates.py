"""Each gate is one rule."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.config import QuietHours
from edge.crash_loop import CRASHES, SAFE_MODE_S, SHORT_LIFE_S, WINDOW_S, CrashLoop
from edge.gates import (
    BatteryGate,
    QuietHoursGate,
    TemperatureGate,
    first_closed,
    read_battery_percent,
    read_temperature_c,
)
from edge.lifecycle import GATED, Lifecycle
from edge.state import Journal
from protocol.messages import DeclineReason


def test_quiet_hours_close_until_they_end() -> None:
    def at(hour: int, minute: int) -> QuietHoursGate:
        return QuietHoursGate(QuietHours.parse("22:00-06:30"), lambda: datetime(2025, 6, 1, hour, minute, tzinfo=UTC))

    assert at(12, 0).check() is None
    closed = at(23, 0).check()
    assert closed is not None
    assert closed.reason is DeclineReason.SLEEPING
    assert closed.retry_after_s == 7.5 * 3600
    closed = at(6, 0).check()
    assert closed is not None
    assert closed.retry_after_s == 1800


@pytest.mark.parametrize(("now_c", "is_open"), [(None, True), (79.9, True), (80.0, True), (80.1, False)])
def test_heat_closes_and_no_sensor_does_not(now_c: float | None, is_open: bool) -> None:
    closed = TemperatureGate(80.0, lambda: now_c).check()
    assert (closed is None) is is_open
    assert closed is None or "80 °C" in closed.detail


@pytest.mark.parametrize(("percent", "is_open"), [(None, True), (20.0, True), (19.0, False)])
def test_a_low_battery_closes_and_mains_does_not(percent: float | None, is_open: bool) -> None:
    assert (BatteryGate(20.0, lambda: percent).check() is None) is is_open


def test_the_first_closed_gate_counts() -> None:
    gates = [BatteryGate(20.0, lambda: 50.0), TemperatureGate(80.0, lambda: 90.0), BatteryGate(20.0, lambda: 1.0)]
    closed = first_closed(gates)
    assert closed is not None
    assert "90 °C" in closed.detail
    assert closed.state in GATED
    assert first_closed(gates[:1]) is None


def test_this_machines_sensors_can_be_read_or_are_absent() -> None:
    for value in (read_temperature_c(), read_battery_percent()):
        assert value is None or -50 < value < 200


@dataclass
class Machine:
    """A device that is started and dies, with clocks that only move when told."""

    folder: Path
    now_s: float = 1e9

    def start(self) -> CrashLoop:
        journal, _ = Journal.open(self.folder / "journal")
        return CrashLoop(journal, lambda: self.now_s, lambda: self.now_s)

    def crash_after(self, seconds: float) -> None:
        loop = self.start()
        loop.__enter__()  # and never left: the process is gone
        self.now_s += seconds
        loop.check()


def test_five_short_lives_in_a_row_mean_safe_mode(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(CRASHES):
        machine.crash_after(5)
    with machine.start() as loop:
        closed = loop.check()
        assert closed is not None
        assert closed.state is Lifecycle.SAFE_MODE
        assert closed.retry_after_s == SAFE_MODE_S


def test_safe_mode_ends_when_a_start_has_lived_long_enough(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(CRASHES):
        machine.crash_after(5)
    with machine.start() as loop:
        assert loop.check() is not None
        machine.now_s += SAFE_MODE_S
        assert loop.check() is None
    with machine.start() as loop:
        assert loop.check() is None


def test_a_crash_in_safe_mode_leads_back_to_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(CRASHES + 1):
        machine.crash_after(5)
    with machine.start() as loop:
        assert loop.check() is not None


@pytest.mark.parametrize(
    ("lived_s", "apart_s"), [(SHORT_LIFE_S, 0.0), (5.0, WINDOW_S)], ids=["long lives", "far apart"]
)
def test_other_deaths_are_no_loop(tmp_path: Path, lived_s: float, apart_s: float) -> None:
    machine = Machine(tmp_path)
    for _ in range(3 * CRASHES):
        machine.crash_after(lived_s)
        machine.now_s += apart_s
    with machine.start() as loop:
        assert loop.check() is None


def test_clean_stops_are_no_crashes(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for _ in range(3 * CRASHES):
        with machine.start() as loop:
            assert loop.check() is None
