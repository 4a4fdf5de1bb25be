"""Energy of a call through a meter that really counts: watts times the clock, and more of them while the CPU works."""

import time

import pytest
from edge_support import export

from edge.measure.document import Plan
from edge.measure.energy import Baseline, WindowEnergy, baseline_of, energy_of, idle_power_mw
from edge.measure.model_file import ModelFile
from edge.measure.run import measure, steps_of
from edge.meters.base import Accuracy, Description, MeterError, Passive, Reading
from edge.meters.modelled import DESCRIPTION
from protocol.messages import EnergySource

IDLE_MW, WORK_MW = 2000.0, 3000.0
SENSOR = Description("clock", Accuracy.RAIL, 1.0, 1000.0, "the whole board")


class ClockMeter(Passive):
    """A board of 2 W that takes 3 W more while this process works: what it ought to read is known."""

    description = SENSOR

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def read(self) -> Reading:
        if self.broken:
            raise MeterError("meter clock: no answer")
        return Reading(IDLE_MW * time.perf_counter() + WORK_MW * time.process_time())


def test_net_energy_is_that_of_the_work_and_gross_that_of_the_board() -> None:
    plan = Plan(windows=4, window_s=0.3, warm_up_s=0.5, baseline_s=0.3)
    assert steps_of(plan, 1, ClockMeter()) == 7
    found = measure([ModelFile(export(), "w8.onnx", 1)], ClockMeter(), plan)
    (one,) = found.subjects
    assert found.baseline is not None
    assert found.baseline.idle_mw == pytest.approx(IDLE_MW, rel=0.02)
    assert one.energy is not None
    assert one.latency is not None
    assert one.energy.source is EnergySource.MEASURED
    assert one.energy.net_mj == pytest.approx(WORK_MW * one.latency.cpu_p50_ms / 1e3, rel=0.3)
    assert one.energy.gross_mj is not None
    assert one.energy.gross_mj > one.energy.net_mj + IDLE_MW * one.latency.p50_ms / 1e3 * 0.8
    assert one.energy.low_mj <= one.energy.net_mj <= one.energy.high_mj


def test_a_meter_that_does_not_answer_leaves_the_model_and_says_so() -> None:
    found = measure([ModelFile(export(), "w8.onnx", 1)], ClockMeter(broken=True), Plan(3, 0.05, 0.1, 0.05))
    (one,) = found.subjects
    assert found.baseline is not None
    assert "interrupted" in found.baseline.note
    assert one.energy is not None
    assert (one.energy.source, one.energy.net_mj) == (EnergySource.MODELLED, one.facts.modelled_mj)
    assert "interrupted in every window" in one.energy.note


def _window(gross_mj: float, wall_s: float = 10.0, source: EnergySource = EnergySource.MEASURED) -> WindowEnergy:
    return WindowEnergy(gross_mj, source, 100, wall_s)


def test_by_hand() -> None:
    """30 J in 10 s less 2 W idle are 10 J, of a hundred calls."""
    baseline = baseline_of(1980.0, 2020.0)
    energy = energy_of([_window(30_000), _window(31_000), _window(32_000)], 7.0, SENSOR, baseline)
    assert (energy.net_mj, energy.gross_mj) == (110.0, 310.0)
    assert (energy.low_mj, energy.high_mj) == (100.0, 120.0)


def test_idle_power_that_moved_by_more_than_5_percent_leaves_no_net() -> None:
    baseline = baseline_of(2000.0, 2120.0)
    assert baseline.idle_mw is None
    assert "2000 mW before and 2120 mW after: expected within 5%" in baseline.note
    energy = energy_of([_window(30_000)], 7.0, SENSOR, baseline)
    assert (energy.net_mj, energy.gross_mj, energy.note) == (None, 300.0, baseline.note)
    assert baseline_of(2000.0, 2090.0).idle_mw == 2045.0


def test_a_window_of_too_few_readings_is_not_resolvable_and_says_what_would_be() -> None:
    slow = Description("plug", Accuracy.WALL, 1.0, 2.0, "the mains")
    energy = energy_of([_window(30_000)], 7.0, slow, Baseline(2000.0, 2000.0, ""))
    assert (energy.net_mj, energy.gross_mj) == (None, None)
    assert energy.note == (
        "not resolvable: a window of 10.0 s holds 20 readings of plug; expected 100, which --seconds 50 gives"
    )


def test_interrupted_windows_are_left_out_and_never_mixed_in() -> None:
    windows = [_window(30_000), _window(5.0, source=EnergySource.MODELLED), _window(30_000)]
    energy = energy_of(windows, 7.0, SENSOR, Baseline(2000.0, 2000.0, ""))
    assert (energy.source, energy.net_mj, energy.high_mj) == (EnergySource.MEASURED, 100.0, 100.0)


def test_a_model_has_no_idle_device() -> None:
    energy = energy_of([_window(5.0, source=EnergySource.MODELLED)], 7.0, DESCRIPTION, None)
    assert (energy.source, energy.net_mj, energy.gross_mj, energy.note) == (EnergySource.MODELLED, 7.0, 7.0, "")


def test_idle_power_is_energy_over_the_time_that_really_passed() -> None:
    assert idle_power_mw(ClockMeter(), 0.2) == pytest.approx(IDLE_MW, rel=0.05)
    assert idle_power_mw(ClockMeter(broken=True), 0.01) is None
