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
    assert np.median([pair.speed_up.ratio for pair in pairs if pair.speed_up]) == pytest.approx(2.0, rel=0.02)


def test_within_a_run_noise_that_hits_both_does_not_hide_ten_percent() -> None:
    rng = np.random.default_rng(3)
    neighbours = np.exp(rng.normal(0, 0.3, 10))
    fast = measured((5.0 * neighbours).tolist(), "a")
    slower = measured((5.5 * neighbours * np.exp(rng.normal(0, 0.01, 10))).tolist(), "b", precision="W4A8")
    (found,) = within(document(fast, slower))
    assert found.verdict is Verdict.SLOWER
    assert found.speed_up is not None
    assert found.speed_up.low < 5 / 5.5 < found.speed_up.high


def test_the_same_model_twice_within_a_run_is_no_difference() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(RUNS):
        neighbours = rng.normal(0, 0.1, 8)
        twins = [measured(np.exp(neighbours + rng.normal(0, 0.05, 8)).tolist(), label) for label in ("a", "a #2")]
        wrong += within(document(*twins))[0].verdict is not Verdict.NO_DIFFERENCE
    assert wrong <= RUNS / 20


def test_what_only_waited_has_not_changed() -> None:
    waited = document(measured([9.0, 9.1, 9.2, 9.1], cpu=[5.0, 5.1, 5.0, 5.1]))
    free = document(measured([5.0, 5.1, 5.2, 5.1], cpu=[5.1, 5.0, 5.1, 5.0]))
    assert between(waited, free)[0].verdict is Verdict.NO_DIFFERENCE
    assert "processor time" in between(waited, free)[0].sentence
    two_threads = replace(free, plan=Plan(threads=2))
    assert between(waited, two_threads)[0].verdict is Verdict.FASTER


def test_where_both_are_faster_the_more_modest_figure_comes_first() -> None:
    """A longer call is interrupted more often: with neighbours, elapsed time flatters what is short."""
    slow, fast = measured([16.0, 16.2, 16.1], "a", cpu=[4.2, 4.21, 4.2]), measured([2.1, 2.12, 2.1], "b")
    (found,) = within(document(slow, fast))
    assert found.sentence.startswith("faster, 2× ["), found.sentence
    assert "in processor time (7.6" in found.sentence


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
