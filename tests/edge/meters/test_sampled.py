"""A sensor becomes a meter: asked in time, asked again when read, and opened anew after each failure."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from meter_contract import MeterContract, Rig
from mqtt_client import eventually

from edge.meters.base import Accuracy, Description, MeterError, Reading
from edge.meters.sampled import PowerMeter


@dataclass
class Lamp:
    """A sensor that says what it is told to, and counts what is done to it."""

    says: list[float | Exception] = field(default_factory=list)
    always: float | Exception = 5000.0
    rate_hz: float = 0.001  # the thread sleeps for a quarter of an hour: only readings ask
    max_mw: float = 20_000.0
    opened: int = 0
    asked: int = 0

    @property
    def description(self) -> Description:
        return Description("lamp", Accuracy.RAIL, 1.0, self.rate_hz, "a lamp")

    def open(self) -> None:
        self.opened += 1

    def read(self) -> float:
        self.asked += 1
        said = self.says.pop(0) if self.says else self.always
        if isinstance(said, Exception):
            raise said
        return said

    def close(self) -> None:
        pass


class TestContract(MeterContract):
    @pytest.fixture
    def rig(self) -> Rig:
        lamp = Lamp()
        return Rig(
            lambda: PowerMeter(lamp),
            lambda: setattr(lamp, "always", OSError("meter lamp fell down")),
            lambda: setattr(lamp, "always", 5000.0),
        )


def clock(*times_s: float) -> Iterator[float]:
    """Each time twice: a question has a beginning and an end."""
    for time_s in times_s:
        yield time_s
        yield time_s


def test_its_thread_asks_at_its_rate():
    lamp = Lamp(rate_hz=10.0)
    with PowerMeter(lamp) as meter:
        began = meter.read()
        began_s = time.monotonic()
        time.sleep(1.0)
        asked, ended = lamp.asked, meter.read()
        lasted_s = time.monotonic() - began_s
    assert 5 <= asked <= 13
    assert ended.total_mj - began.total_mj == pytest.approx(5000.0 * lasted_s, rel=0.05)


def test_a_reading_is_a_sample_of_its_own():
    times = clock(0.0, 1.0, 4.0)
    meter = PowerMeter(Lamp([1000.0, 3000.0, 1000.0]), monotonic=lambda: next(times))
    assert [meter.read().total_mj for _ in range(3)] == [0.0, 2000.0, 8000.0]


def test_an_answer_is_dated_by_the_middle_of_its_question():
    times = iter([0.0, 2.0, 4.0, 8.0])
    meter = PowerMeter(Lamp([1000.0, 1000.0]), monotonic=lambda: next(times))
    meter.read()
    assert meter.read().total_mj == 1000.0 * (6.0 - 1.0)


@pytest.mark.parametrize("failure", [OSError("bus"), ValueError("'x' is no number"), MeterError("gone"), 0.0, 1e9])
def test_a_failure_is_a_meter_error_and_the_sensor_is_opened_again(failure: float | Exception):
    lamp = Lamp([5000.0, failure])
    meter = PowerMeter(lamp)
    meter.read()
    with pytest.raises(MeterError, match=r"meter lamp|gone"):
        meter.read()
    assert lamp.opened == 1
    assert meter.read() == Reading(0.0, 1)
    assert lamp.opened == 2


def test_the_thread_finds_a_sensor_that_comes_back_by_itself():
    lamp = Lamp(rate_hz=100.0)
    with PowerMeter(lamp) as meter:
        lamp.always = OSError("bus")
        eventually(lambda: not meter._open, "the failure to be noticed")
        lamp.always = 5000.0
        eventually(lambda: meter._open, "the sensor to be opened again")
        assert meter.read().holes == 1


def test_a_failing_sensor_is_not_hammered():
    lamp = Lamp(rate_hz=100.0)
    with PowerMeter(lamp) as meter:
        lamp.always = OSError("bus")
        eventually(lambda: not meter._open, "the failure to be noticed")
        asked = lamp.asked
        time.sleep(0.3)
        assert lamp.asked - asked <= 1


def test_a_bug_is_not_taken_for_a_failing_sensor():
    meter = PowerMeter(Lamp([ZeroDivisionError()]))
    with pytest.raises(ZeroDivisionError):
        meter.read()
