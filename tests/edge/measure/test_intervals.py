"""The law of the intervals: they hold the truth as often as they say, where a bootstrap of so few windows does not."""

import numpy as np
import pytest

from edge.measure.intervals import paired, shift, unpaired, wander

DRAWS = 2000


@pytest.mark.parametrize("windows", [5, 10])
def test_an_interval_holds_the_true_ratio_19_times_of_20(windows: int) -> None:
    rng = np.random.default_rng(0)
    held = [0, 0]
    for _ in range(DRAWS):
        first, second = np.exp(rng.normal(0.2, 0.03, windows)), np.exp(rng.normal(0.0, 0.05, windows))
        for number, interval in enumerate((paired(first, second), unpaired(first, second))):
            held[number] += interval.low <= np.exp(0.2) <= interval.high
    assert all(0.935 <= count / DRAWS <= 0.97 for count in held), held


def test_a_percentile_bootstrap_of_five_windows_does_not() -> None:
    """The road not taken, and why."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(DRAWS):
        first, second = rng.normal(size=5), rng.normal(size=5)
        means = rng.choice(second, (400, 5)).mean(1) - rng.choice(first, (400, 5)).mean(1)
        held += np.percentile(means, 2.5) <= 0 <= np.percentile(means, 97.5)
    assert held / DRAWS < 0.91


def test_by_hand() -> None:
    """Logarithms 0.1 and 0.3 apart from their mean 0.2: s² = 0.02, s/√2 = 0.1, t(1) = 12.706."""
    interval = paired([np.exp(0.1), np.exp(0.3)], [1.0, 1.0])
    assert interval.ratio == pytest.approx(np.exp(0.2))
    assert interval.low == pytest.approx(np.exp(0.2 - 1.2706))
    assert interval.high == pytest.approx(np.exp(0.2 + 1.2706))
    assert not interval.excludes_one()


def test_noise_that_hits_both_cancels_in_pairs_alone() -> None:
    noise = np.exp(np.random.default_rng(0).normal(0, 0.2, 8))
    fast, slow = 1.0 * noise, 1.5 * noise
    assert paired(slow, fast).low == pytest.approx(1.5)
    assert paired(slow, fast).high == pytest.approx(1.5)
    assert unpaired(slow, fast).high / unpaired(slow, fast).low > 1.25


def test_series_without_any_spread() -> None:
    assert unpaired([2.0, 2.0, 2.0], [1.0, 1.0, 1.0]).excludes_one()
    assert not unpaired([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]).excludes_one()


def test_wander_and_shift_are_larger_ratios_minus_one() -> None:
    assert shift(1.0, 1.25) == shift(1.25, 1.0) == pytest.approx(0.25)
    assert wander([1.0, 1.0, 5.0, 1.1, 1.1]) == pytest.approx(0.1)
    assert wander([3.0]) == 0.0
