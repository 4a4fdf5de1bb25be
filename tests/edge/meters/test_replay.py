"""Traces play to the joules that paper gives, by their own clock, with the failures that were recorded."""

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meter_contract import MeterContract, Rig

from edge.meters.base import Accuracy, MeterError, Reading
from edge.meters.replay import ReplayMeter, replay
from edge.meters.span import Span
from edge.meters.trace import Header, Sample, Trace, read_trace, to_lines
from protocol.messages import EnergySource

TRACES = Path(__file__).parent / "traces"
JETSON, PI5 = read_trace(TRACES / "jetson.jsonl"), read_trace(TRACES / "raspberry.jsonl")


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def played(trace: Trace, *at_s: float) -> list[Reading]:
    """Readings at these times of the trace."""
    clock = Clock()
    readings = []
    with ReplayMeter(trace, monotonic=clock) as meter:
        for time_s in at_s:
            clock.now_s = time_s
            readings.append(meter.read())
    return readings


class TestContract(MeterContract):
    """A trace that fails and recovers when it is told to: one that is written while it plays."""

    @pytest.fixture
    def rig(self) -> Rig:
        clock, began_s = Clock(), [0.0]
        steady = [Sample(step / 10, 5000.0) for step in range(100)]

        def make() -> ReplayMeter:
            meter = ReplayMeter(replace(JETSON, samples=tuple(steady)), monotonic=clock)
            meters.append(meter)
            began_s[0] = clock.now_s
            return meter

        meters: list[ReplayMeter] = []

        def say(mw: float | None) -> None:
            meter, played_s = meters[-1], clock.now_s - began_s[0]
            error = "" if mw is not None else "meter jetson: gone"
            meter._samples = tuple(
                replace(sample, mw=mw, error=error) if sample.t_s > played_s else sample for sample in meter._samples
            )
            clock.now_s += 0.2

        def move() -> None:
            clock.now_s += 0.1

        return Rig(make, lambda: say(None), lambda: say(5000.0), move)

    def test_where_it_is_not_there_entering_says_so(self, rig: Rig):  # noqa: ARG002 (a trace cannot vanish)
        """A file that is not there is met before anything is entered."""
        with pytest.raises(MeterError, match=r"absent.jsonl: .*No such file"):
            replay("absent.jsonl")


def test_a_jetsons_joules_are_those_of_paper():
    """1 s at 5 W, 0.1 s from 5 to 9 W, 1 s at 9 W, 0.1 s back, 0.3 s at 5 W."""
    by_hand_mj = 5000.0 + 700.0 + 9000.0 + 700.0 + 1500.0
    (reading,) = played(JETSON, 2.5)
    assert reading.total_mj == pytest.approx(by_hand_mj, rel=1e-12)
    assert reading.holes == 0


def test_a_pi_5s_joules_are_those_of_paper_beside_its_hole():
    """0.2 s · 2.9 W + 0.3 s · 4.5 W + 0.2 s · 6 W, a failure, 0.2 s · 4.5 W."""
    before_mj, after_mj = 580.0 + 1350.0 + 1200.0, 900.0
    before, after = played(PI5, 0.7, 1.7)
    assert before == Reading(pytest.approx(before_mj), 0)
    assert after == Reading(pytest.approx(before_mj + after_mj), 1)


def test_both_say_that_no_board_said_them():
    for trace in (JETSON, PI5):
        assert trace.header.recorded == "by hand"
        assert "no board said this" in trace.header.note


def test_a_reading_between_samples_is_on_the_line_between_them():
    """From 5 to 9 W in 0.1 s: half-way, 0.05 s · 6 W are in."""
    one, two = played(JETSON, 1.05, 1.1)
    assert one.total_mj == pytest.approx(5000.0 + 300.0)
    assert two.total_mj == pytest.approx(5000.0 + 700.0)


@given(st.lists(st.floats(0.0, 2.5), max_size=20))
def test_how_often_it_is_read_does_not_change_what_it_says(at_s: list[float]):
    assert played(JETSON, *sorted(at_s), 2.5)[-1].total_mj == pytest.approx(16_900.0)


def test_while_the_board_failed_it_fails_and_at_its_end_it_ends():
    with pytest.raises(MeterError, match=r"replay of raspberry, 0.9 s: vcgencmd pmic_read_adc took more"):
        played(PI5, 1.0)
    with pytest.raises(MeterError, match=r"replay of jetson: ended after 2.5 s"):
        played(JETSON, 2.6)


def test_a_gap_of_more_than_five_periods_is_a_hole_and_no_line():
    gap = replace(JETSON, samples=(Sample(0.0, 1000.0), Sample(0.6, 1000.0), Sample(0.7, 1000.0)))
    during, after = played(gap, 0.3, 0.7)
    assert during == Reading(0.0, 0)
    assert after == Reading(pytest.approx(100.0), 1)


def test_what_it_says_is_never_called_measured():
    clock = Clock()
    with ReplayMeter(JETSON, monotonic=clock) as meter:
        span = Span(meter)
        clock.now_s += 1.0
        spent = span.end(7.0)
    assert (spent.mj, spent.source) == (pytest.approx(5000.0), EnergySource.MODELLED)
    assert meter.description.accuracy is Accuracy.MODEL
    assert meter.description.name == "replay of jetson"
    assert "by hand" in meter.description.includes


def test_it_plays_in_real_time_too():
    with replay(str(TRACES / "jetson.jsonl")) as meter:
        time.sleep(0.2)
        assert 800.0 <= meter.read().total_mj <= 10_000.0


def test_what_is_written_is_read_again(tmp_path: Path):
    header = Header(replace(JETSON.header.meter, name="jetson"), 1e5, "Böard", "2026-01-01T00:00:00Z", {"kernel": "6"})
    samples = (Sample(0.0, 1.25), Sample(0.1, error="weg"), Sample(0.1, 3.5))
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(to_lines(header, samples)), encoding="utf-8")
    assert read_trace(path) == Trace(header, samples)


HEADER = (TRACES / "jetson.jsonl").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "empty, expected a header"),
        ("nonsense", "header: "),
        ("[]", "header: "),
        ("{}", "header: KeyError"),
        (HEADER.replace('"bitfleet_trace": 1', '"bitfleet_trace": 2'), "version 2, expected 1"),
        (HEADER.replace('"rail"', '"guess"'), "guess"),
        (HEADER.replace('"rate_hz": 10.0', '"rate_hz": 0'), "rate_hz 0, expected a number above 0"),
        (HEADER, "no samples"),
        (f"{HEADER}\n{{}}", "sample 1: KeyError"),
        (
            f"{HEADER}\n{json.dumps({'t_s': 1, 'mw': 1})}\n{json.dumps({'t_s': 0, 'mw': 1})}",
            "sample 2: .*times that grow",
        ),
    ],
)
def test_a_file_that_is_no_trace_is_named_with_the_place(tmp_path: Path, text: str, error: str):
    path = tmp_path / "trace.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MeterError, match=f"trace .*trace.jsonl.*{error}"):
        read_trace(path)


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([HEADER.encode(), b'{"t_s": 1, "mw": 2}', b"[" * 9999]), max_size=4
    )
)
def test_any_bytes_are_a_trace_or_named(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]):
    path = tmp_path_factory.mktemp("any") / "trace.jsonl"
    path.write_bytes(b"\n".join(lines))
    with suppress(MeterError):
        assert read_trace(path).samples
