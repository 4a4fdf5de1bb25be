"""Rules against their plain numpy versions, what they bear, and how they are spelled."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aggregator.merge import MergeError
from aggregator.robust import Merging
from aggregator.robust.clipping import factors, weights
from aggregator.robust.rules import Krum, Median, TrimmedMean, count_of
from aggregator.robust.settling import squares_of
from protocol.codec.recipe import Recipe

Values = npt.NDArray[np.float32]

matrices = st.tuples(st.integers(1, 9), st.integers(1, 24)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-100, 100, width=32))
)


def plain_trimmed(values_BK: Values, cut: int) -> npt.NDArray[np.float64]:
    ordered = np.sort(values_BK.astype(np.float64), axis=1)
    return ordered[:, cut : values_BK.shape[1] - cut].mean(axis=1)


def plain_krum(points_KN: Values, attackers: int) -> npt.NDArray[np.float64]:
    squares = ((points_KN[:, None, :].astype(np.float64) - points_KN[None]) ** 2).sum(axis=2)
    nearest = np.sort(squares, axis=1)[:, 1 : len(points_KN) - attackers - 1]  # the first is the update itself
    return nearest.sum(axis=1)


@given(matrices)
def test_the_median_is_numpys(values: Values) -> None:
    np.testing.assert_allclose(Median().settle(values), np.median(values.astype(np.float64), axis=1), atol=1e-5)


@given(matrices, st.floats(0.01, 0.49))
def test_the_trimmed_mean_is_the_plain_one(values: Values, share: float) -> None:
    expected = plain_trimmed(values, count_of(share, values.shape[1]))
    np.testing.assert_allclose(TrimmedMean(share).settle(values), expected, atol=1e-5)


@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_updates_changes_no_bit(values: Values, random: object) -> None:
    order = list(range(values.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    for rule in (Median(), TrimmedMean(0.3)):
        assert rule.settle(values).tobytes() == rule.settle(np.ascontiguousarray(values[:, order])).tobytes()


@given(st.integers(5, 14).flatmap(lambda k: arrays(np.float32, (k, 6), elements=st.floats(-9, 9, width=32))))
def test_krum_scores_are_the_plain_ones(points: Values) -> None:
    wide = points.astype(np.float64)
    attackers = (len(points) - 3) // 2
    scores = Krum(float(attackers)).scores(squares_of(wide @ wide.T))
    np.testing.assert_allclose(scores, plain_krum(points, attackers), atol=1e-9)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.3)])
def test_three_of_ten_cannot_drag_a_coordinate_out_of_what_honest_devices_say(rule: Median | TrimmedMean) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(50, 7)).astype(np.float32)
    for lie in (1e30, -1e30):
        settled = rule.settle(np.concatenate([honest, np.full((50, 3), lie, np.float32)], axis=1))
        assert (settled >= honest.min(axis=1)).all()
        assert (settled <= honest.max(axis=1)).all()


@pytest.mark.parametrize("lie", ["far", "alike"])
def test_krum_believes_only_honest_devices(lie: str) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(10, 40)) + 1.0
    points[7:] = -4 * points[7:] if lie == "far" else -points[7]  # liars that agree are near to each other
    squares = squares_of(points @ points.T)
    for several, count in ((False, 1), (True, 5)):
        krum = Krum(0.3, several=several)
        chosen = krum.chosen(krum.scores(squares))
        assert len(chosen) == count
        assert max(chosen) < 7


@pytest.mark.parametrize(("attackers", "count", "needed"), [(3.0, 8, 9), (0.3, 2, 3), (1.0, 4, 5)])
def test_krum_says_how_many_updates_it_needs(attackers: float, count: int, needed: int) -> None:
    with pytest.raises(MergeError, match=f"krum of {count} updates: expected at least {needed}"):
        Krum(attackers).scores(np.ones((count, count)))
    assert len(Krum(attackers).scores(np.ones((needed, needed)))) == needed


def test_clipping_to_the_median_leaves_the_smaller_half() -> None:
    np.testing.assert_allclose(factors(np.array([1.0, 2.0, 4.0, 0.0]), 0.0), [1, 0.75, 0.375, 1])
    np.testing.assert_allclose(factors(np.array([1.0, 2.0, 4.0]), 2.0), [1, 1, 0.5])
    np.testing.assert_allclose(factors(np.array([1.0, 2.0, 4.0]), None), 1)
    np.testing.assert_allclose(factors(np.zeros(3), 0.0), 1)


def test_a_device_that_claims_millions_of_pictures_weighs_as_the_median() -> None:
    assert weights([10, 40, 60, 1 << 31, 50]) == [10, 40, 50, 50, 50]


# --- spelling ---


@pytest.mark.parametrize(
    "text",
    [
        "mean",
        "clip:median",
        "clip:0.5",
        "median",
        "trimmed:0.3",
        "krum:3",
        "krum:0.25",
        "multi-krum:0.3",
        "clip:median+trimmed:0.3",
        "clip:10+multi-krum:2",
        "clip:2.5+median",
    ],
)
def test_a_way_of_merging_is_spelled_as_it_was_read(text: str) -> None:
    assert str(Merging.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "average",
        "mean+median",
        "clip",
        "clip:",
        "clip:0",
        "clip:-1",
        "clip:median+",
        "clip:median+mean",
        "median:3",
        "trimmed",
        "trimmed:0.5",
        "trimmed:0",
        "trimmed:1",
        "krum",
        "krum:0",
        "krum:0.5",
        "krum:1.5",
        "krum:511",
        "krum:nan",
        "median+clip:1",
        "median+",
    ],
)
def test_other_spellings_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="expected mean, clip:NORM"):
        Merging.parse(text)


@pytest.mark.parametrize("recipe", ["stc:0.01", "topk:0.1", "fedzip:z=0.2,k=3", "step:0.01", "eden:0.5"])
def test_coordinates_of_updates_that_are_mostly_zero_cannot_be_settled_alone(recipe: str) -> None:
    parsed = Recipe.parse(recipe)
    assert "most values" in Merging.parse("median").objection(parsed)
    assert "most values" in Merging.parse("clip:1+trimmed:0.2").objection(parsed)
    assert not Merging.parse("clip:median").objection(parsed)
    assert not Merging.parse("krum:1").objection(parsed)
    assert not Merging.parse("median").objection(Recipe.parse("ef+sign"))
