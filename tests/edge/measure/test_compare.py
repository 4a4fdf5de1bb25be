"""A comparison does not call noise a difference, and does not miss one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from measure_support import CONDITIONS, document, measured

from edge.measure.compare import Verdict, between, caveats, within
from edge.measure.document import Document, DocumentError, Plan

RUNS = 400
Noise = Callable[[np.random.Generator, int], np.ndarray]


def independent(rng: np.random.Generator, windows: int) -> np.ndarray:
    return rng.normal(0, 0.04, windows)


def drifting(rng: np.random.Generator, windows: int) -> np.ndarray:
    """It warms up or cools down, by up to 10 % over the run."""
    return np.linspace(0, rng.uniform(-0.1, 0.1), windows)


def slow(rng: np.random.Generator, windows: int) -> np.ndarray:
    """Neighbours that come and go more slowly than windows do: an autoregressive process, 0.9 from one to the next."""
    series = [rng.normal(0, 0.05)]
    for _ in range(windows - 1):
        series.append(0.9 * series[-1] + np.sqrt(1 - 0.9**2) * rng.normal(0, 0.05))
    return np.array(series)


def shifted(rng: np.random.Generator, windows: int) -> np.ndarray:
    """Another clock rate for all of a run."""
    return np.full(windows, rng.normal(0, 0.05))


def bursts(rng: np.random.Generator, windows: int) -> np.ndarray:
    return (rng.random(windows) < 0.3) * rng.exponential(0.3, windows)


def drawn(noise: Noise, rng: np.random.Generator, windows: int, ms: float) -> Document:
    """A run of a model on a machine whose noise the yardstick feels, each with a little of its own."""
    machine = noise(rng, windows)
    model, yardstick = (np.exp(machine + rng.normal(0, 0.005, windows)) for _ in range(2))
    return document(measured((ms * model).tolist()), yardstick_ms=yardstick.tolist())


@pytest.mark.parametrize("windows", [5, 10])
@pytest.mark.parametrize("noise", [independent, drifting, slow, shifted, bursts])
def test_two_runs_of_the_same_model_show_no_difference_19_times_of_20(noise: Noise, windows: int) -> None:
    rng = np.random.default_rng(1)
    verdicts = [
        between(drawn(noise, rng, windows, 5.0), drawn(noise, rng, windows, 5.0))[0].verdict for _ in range(RUNS)
    ]
    assert sum(verdict is not Verdict.NO_DIFFERENCE for verdict in verdicts) <= RUNS / 20


@pytest.mark.parametrize("noise", [independent, drifting, slow, shifted])
def test_twice_as_fast_is_seen_through_any_of_it(noise: Noise) -> None:
    rng = np.random.default_rng(2)
    pairs = [between(drawn(noise, rng, 10, 5.0), drawn(noise, rng, 10, 2.5))[0] for _ in range(RUNS)]
    assert sum(pair.verdict is Verdict.FASTER for pair in pairs) >= 0.99 * RUNS
    assert np.median([pair.worked.ratio for pair in pairs if pair.worked]) == pytest.approx(2.0, rel=0.02)


def test_within_a_run_noise_that_hits_both_does_not_hide_ten_percent() -> None:
    rng = np.random.default_rng(3)
    neighbours = np.exp(rng.normal(0, 0.3, 10))
    fast = measured((5.0 * neighbours).tolist(), "a")
    slower = measured((5.5 * neighbours * np.exp(rng.normal(0, 0.01, 10))).tolist(), "b", precision="W4A8")
    (found,) = within(document(fast, slower))
    assert found.verdict is Verdict.SLOWER
    assert found.worked is not None
    assert found.worked.low < 5 / 5.5 < found.worked.high


def test_the_same_model_twice_within_a_run_is_no_difference() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(RUNS):
        neighbours = rng.normal(0, 0.1, 8)
        twins = [measured(np.exp(neighbours + rng.normal(0, 0.05, 8)).tolist(), label) for label in ("a", "a #2")]
        wrong += within(document(*twins))[0].verdict is not Verdict.NO_DIFFERENCE
    assert wrong <= RUNS / 20


def test_what_only_waited_has_not_changed_unless_there_are_other_threads_to_wait_for() -> None:
    waited = document(measured([9.0, 9.1, 9.2, 9.1], cpu=[5.0, 5.1, 5.0, 5.1]))
    free = document(measured([5.0, 5.1, 5.2, 5.1], cpu=[5.1, 5.0, 5.1, 5.0]))
    (same,) = between(waited, free)
    assert (same.verdict, same.decided_by) == (Verdict.NO_DIFFERENCE, "processor time")
    two_threads = [replace(run, plan=Plan(threads=2)) for run in (waited, free)]
    (other,) = between(*two_threads)
    assert (other.verdict, other.decided_by) == (Verdict.FASTER, "elapsed time")
    assert within(document(waited.subjects[0], replace(free.subjects[0], label="b")))[0].verdict is same.verdict


def test_between_runs_on_a_busy_machine_nothing_below_the_waiting_is_believed_and_within_one_it_is() -> None:
    """Seen on two cores under a load of ten: processor time of the same model was 76 % longer when it waited more."""
    quiet = measured([1.78, 1.80, 1.79, 1.80], cpu=[1.74, 1.75, 1.74, 1.73])
    busy = measured([6.0, 6.1, 6.2, 6.0], "b", cpu=[2.25, 2.26, 2.24, 2.25])
    (apart,) = between(document(quiet), document(busy))
    assert apart.verdict is Verdict.NO_DIFFERENCE
    assert apart.noise == pytest.approx(6.05 / 2.25 - 1)
    assert within(document(quiet, busy))[0].verdict is Verdict.SLOWER


def test_clocks_that_contradict_one_another_tell_nothing() -> None:
    one = measured([5.0, 5.1, 5.0, 5.1], "a", cpu=[2.0, 2.1, 2.0, 2.1])
    other = measured([4.0, 4.1, 4.0, 4.1], "b", cpu=[3.0, 3.1, 3.0, 3.1])
    (found,) = within(document(one, other))
    assert found.verdict is Verdict.NO_DIFFERENCE
    assert "elapsed time does not show it" in found.sentence


def test_elapsed_time_that_neighbours_stretched_does_not_flatter_the_shorter() -> None:
    slow, fast = measured([16.0, 16.2, 16.1], "a", cpu=[4.2, 4.21, 4.2]), measured([2.1, 2.12, 2.1], "b")
    (found,) = within(document(slow, fast))
    assert found.sentence.startswith("faster, 2× [1.98, 2.02] in processor time (7.6"), found.sentence


def test_a_yardstick_that_moved_hides_as_much_twice_over_but_not_between_boards() -> None:
    before = document(measured([5.0, 5.01, 5.0, 5.01]), yardstick_ms=[1.0] * 4)
    after = document(measured([6.0, 6.01, 6.0, 6.01]), yardstick_ms=[1.11] * 4)
    (hidden,) = between(before, after)
    assert hidden.verdict is Verdict.NO_DIFFERENCE
    assert hidden.noise == pytest.approx(0.22)
    assert "noise of 22" in hidden.sentence
    elsewhere = replace(after, conditions=replace(CONDITIONS, board="Pi 5", governor=None))
    assert between(before, elsewhere)[0].verdict is Verdict.SLOWER
    assert list(caveats(before, elsewhere)) == ["board: Pi 4 against Pi 5", "governor: performance against None"]


def test_too_few_windows_say_so() -> None:
    (one,) = between(document(measured([5.0, 5.0])), document(measured([1.0, 1.0, 1.0])))
    assert one.verdict is Verdict.UNKNOWN
    assert "2 windows" in one.sentence


def test_a_clock_that_did_not_tick_is_no_reason_to_fall_over() -> None:
    still = document(measured([5.0, 5.1, 5.0], cpu=[0.0] * 3), yardstick_ms=[0.0] * 3)
    assert between(still, document(measured([4.0, 4.1, 4.0]), yardstick_ms=[0.0] * 3))[0].verdict is not Verdict.UNKNOWN
    with pytest.raises(DocumentError, match=r"p50_ms -1.0: expected no time below 0"):
        measured([-1.0])


def test_pairs_have_the_same_label_or_are_the_only_ones() -> None:
    one, other = measured([5.0] * 3, "a"), measured([4.0] * 3, "b")
    assert [(pair.first, pair.second) for pair in between(document(one), document(other))] == [("a", "b")]
    assert [pair.first for pair in between(document(one, other), document(other))] == ["b"]
    with pytest.raises(DocumentError, match="nothing to compare: the first has a; b, the second c"):
        between(document(one, other), document(measured([4.0] * 3, "c")))


def test_what_is_called_differently_is_not_compared_within_a_run() -> None:
    eight = measured([9.0] * 3, "W8A8, batch 8", batch=8)
    assert within(document(measured([5.0] * 3), eight)) == []
