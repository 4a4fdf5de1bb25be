"""Sums that can be checked by hand, and everything a sensor might say instead of the truth."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.meters.base import MeterError
from edge.meters.tally import Differences, Trapezoid

RANGE_UJ = 262_143_328_850
"""Of a desktop processor: 2³² steps of 61 µJ, less one."""


def trapezoid() -> Trapezoid:
    return Trapezoid("test", max_mw=10_000.0, max_gap_s=0.5)


def test_the_area_under_a_line_is_its_trapezoids():
    tally = trapezoid()
    for at_s, mw in [(0.0, 1000.0), (0.1, 3000.0), (0.3, 2000.0)]:
        tally.add(at_s, mw)
    # (1000 + 3000)/2 · 0.1 + (3000 + 2000)/2 · 0.2 = 200 + 500
    assert tally.total_mj == pytest.approx(700.0)
    assert tally.holes == 0


@given(
    st.lists(st.floats(0.01, 0.4), min_size=2, max_size=30),
    st.floats(1.0, 100.0),
    st.floats(0.0, 100.0),
)
def test_a_straight_line_is_exact_however_it_is_sampled(steps_s: list[float], start_mw: float, slope: float):
    tally, at_s = trapezoid(), 0.0
    tally.add(0.0, start_mw)
    for step_s in steps_s:
        at_s += step_s
        tally.add(at_s, start_mw + slope * at_s)
    assert tally.total_mj == pytest.approx(start_mw * at_s + slope * at_s**2 / 2)


@pytest.mark.parametrize("nonsense", [0.0, -5.0, 10_000.1, math.nan, math.inf, -math.inf])
def test_nonsense_is_refused_and_leaves_a_hole(nonsense: float):
    tally = trapezoid()
    tally.add(0.0, 1000.0)
    tally.add(0.1, 1000.0)
    with pytest.raises(MeterError, match=r"meter test: .* mW, expected more than 0 and at most 10000 mW"):
        tally.add(0.2, nonsense)
    tally.add(0.3, 1000.0)
    tally.add(0.4, 1000.0)
    assert tally.total_mj == pytest.approx(200.0), "what lies beside the hole counts, what lies in it does not"
    assert tally.holes == 1


def test_several_failures_in_a_row_are_one_hole():
    tally = trapezoid()
    tally.interrupt()
    assert tally.holes == 0, "nothing was known before either"
    tally.add(0.0, 1.0)
    tally.interrupt()
    tally.interrupt()
    assert tally.holes == 1


@pytest.mark.parametrize(("next_s", "holes", "total_mj"), [(0.5, 0, 500.0), (0.51, 1, 0.0), (-0.1, 1, 0.0)])
def test_too_long_without_a_sample_or_time_that_runs_backwards_is_a_hole(next_s: float, holes: int, total_mj: float):
    tally = trapezoid()
    tally.add(0.0, 1000.0)
    tally.add(next_s, 1000.0)
    assert (tally.holes, tally.total_mj) == (holes, pytest.approx(total_mj))


def differences(*ranges_uj: int) -> Differences:
    return Differences("test", max_mw=200_000.0, ranges_uj=ranges_uj or (RANGE_UJ,))


def test_counters_add_up_their_differences():
    tally = differences(RANGE_UJ, RANGE_UJ)
    tally.add(0.0, (1_000_000, 5_000))
    tally.add(1.0, (11_000_000, 2_005_000))
    assert tally.total_mj == 10_000.0 + 2_000.0
    assert tally.holes == 0


def test_a_counter_that_wraps_goes_on():
    tally = differences()
    tally.add(0.0, (RANGE_UJ - 3_000_000,))
    tally.add(1.0, (4_000_000,))
    assert tally.total_mj == 7_000.0
    assert tally.holes == 0


@given(st.lists(st.integers(1, 100_000_000), min_size=1, max_size=60), st.integers(0, RANGE_UJ))
def test_wraps_never_change_the_sum(steps_uj: list[int], start_uj: int):
    tally, at_s, count_uj = differences(), 0.0, start_uj
    tally.add(at_s, (count_uj,))
    for step_uj in steps_uj:
        at_s, count_uj = at_s + 1.0, (count_uj + step_uj) % RANGE_UJ
        tally.add(at_s, (count_uj,))
    assert tally.total_mj == pytest.approx(sum(steps_uj) / 1000.0)
    assert tally.holes == 0


@pytest.mark.parametrize(
    ("before_uj", "now_uj", "what"),
    [
        (50_000_000, 10_000_000, "set back, and too far from its end for a wrap"),
        (50_000_000, 500_000_000, "450 J in a second are 450 W"),
    ],
)
def test_a_counter_that_jumps_is_a_hole_and_goes_on_from_there(before_uj: int, now_uj: int, what: str):
    tally = differences()
    tally.add(0.0, (before_uj,))
    tally.add(1.0, (now_uj,))
    tally.add(2.0, (now_uj + 8_000_000,))
    assert (tally.total_mj, tally.holes) == (8_000.0, 1), what


def test_so_long_that_it_may_have_wrapped_twice_is_a_hole():
    tally = differences()
    tally.add(0.0, (1_000,))
    tally.add(RANGE_UJ / 1e3 / 200_000.0, (2_000,))
    assert (tally.total_mj, tally.holes) == (0.0, 1)


@pytest.mark.parametrize("count_uj", [-1, RANGE_UJ + 1])
def test_a_counter_out_of_its_range_is_nonsense(count_uj: int):
    tally = differences()
    tally.add(0.0, (5,))
    with pytest.raises(MeterError, match=f"counter at {count_uj} µJ, expected 0 to {RANGE_UJ}"):
        tally.add(0.1, (count_uj,))
    assert tally.holes == 1


def test_a_counter_that_stands_still_is_none():
    tally = differences()
    tally.add(0.0, (7,))
    tally.add(0.001, (7,))  # between two steps of the counter
    with pytest.raises(MeterError, match=r"still at 7 µJ after 1 s, expected a counter that moves"):
        tally.add(1.0, (7,))
    tally.add(1.1, (8,))
    tally.add(1.2, (9,))
    assert tally.holes == 1
