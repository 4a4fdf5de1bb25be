"""Deadlines: time that passes counts, clocks that jump do not."""

import pytest
from fleet import Clock

from aggregator.deadlines import Deadlines


def started() -> tuple[Clock, Deadlines, float]:
    clock = Clock()
    return clock, Deadlines(clock.wall, clock.steady), clock.wall() + 100.0


def test_time_that_passes_counts() -> None:
    clock, deadlines, deadline_at = started()
    assert deadlines.remaining_s(1, deadline_at, 100.0) == 100.0
    clock.pass_(30.0)
    assert deadlines.remaining_s(1, deadline_at, 100.0) == 70.0
    clock.pass_(300.0)
    assert deadlines.remaining_s(1, deadline_at, 100.0) == 0.0


@pytest.mark.parametrize("jump_s", [-1e9, -50.0, 50.0, 1e9])
def test_a_jump_while_running_changes_nothing(jump_s: float) -> None:
    clock, deadlines, deadline_at = started()
    deadlines.remaining_s(1, deadline_at, 100.0)
    clock.wall_s += jump_s
    assert deadlines.remaining_s(1, deadline_at, 100.0) == 100.0


@pytest.mark.parametrize(("passed_s", "left_s"), [(-1e9, 100.0), (0.0, 100.0), (40.0, 60.0), (100.0, 0.0), (1e9, 0.0)])
def test_after_a_restart_the_wall_clock_decides_within_bounds(passed_s: float, left_s: float) -> None:
    clock, _, deadline_at = started()
    clock.wall_s += passed_s
    clock.steady_s = 0.0
    assert Deadlines(clock.wall, clock.steady).remaining_s(1, deadline_at, 100.0) == left_s


def test_another_deadline_starts_its_own_count() -> None:
    clock, deadlines, deadline_at = started()
    deadlines.remaining_s(1, deadline_at, 100.0)
    clock.pass_(90.0)
    assert deadlines.remaining_s(1, deadline_at + 20.0, 20.0) == 20.0
    assert deadlines.remaining_s(2, deadline_at, 100.0) == 10.0
