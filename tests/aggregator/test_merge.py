"""Federated averaging in integers: exact, in any order, and equal to the plain mean."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from fleet import delta_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SMALL

from aggregator.merge import MAX_UPDATES, MergeError, PartialSum, check_headroom, plain_mean, plain_moments
from aggregator.model import GlobalModel
from protocol.architecture import Tensors
from protocol.codec.payload import Content, Header
from protocol.precision import Precision

BASE = GlobalModel.fresh(SMALL.spec, seed=3)
Update = tuple[Header, Tensors, int]


def header(precision: str, pictures: int) -> Header:
    return Header(SMALL.spec, "fp32", precision, Content.DELTA, pictures)


def update(precision: str, seed: int, samples: int, pictures: int | None = None) -> Update:
    tensors = delta_tensors(Precision.parse(precision), seed=seed)
    return header(precision, samples if pictures is None else pictures), tensors, samples


def total(updates: list[Update]) -> PartialSum:
    result = PartialSum(SMALL.spec)
    for one in updates:
        result = result.add(*one)
    return result


updates = st.lists(
    st.builds(
        update,
        st.sampled_from(["W8A8", "W4A8", "W1A8", "fp32"]),
        st.integers(0, 1 << 20),
        st.integers(1, 1 << 16),
        st.integers(0, 1 << 16),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(updates=updates, data=st.data())
def test_any_grouping_in_any_order_gives_the_same_bits(updates: list[Update], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(updates))
    cut = data.draw(st.integers(0, len(updates)))
    left, right = total(list(shuffled[:cut])), total(list(shuffled[cut:]))
    expected = total(updates).finish(BASE).to_bytes()
    assert left.merge(right).finish(BASE).to_bytes() == expected
    assert right.merge(left).finish(BASE).to_bytes() == expected


def test_the_integer_sum_agrees_with_the_plain_mean() -> None:
    many = [update("W8A8", seed, samples=50 * seed + 7) for seed in range(1, 6)]
    merged = total(many).finish(BASE)
    samples = [samples for _, _, samples in many]
    for name, base in BASE.shared.items():
        expected = plain_mean(base, [tensors[name] for _, tensors, _ in many], samples)
        np.testing.assert_allclose(merged.shared[name], expected, rtol=1e-7, atol=1e-9)


def test_pooled_moments_are_those_of_all_pictures_together() -> None:
    rng = np.random.default_rng(5)
    pictures = [13, 200, 57]
    groups = [rng.normal(loc=index, scale=1 + index, size=(count, 4)) for index, count in enumerate(pictures)]
    everything = np.concatenate(groups)
    mean, variance = plain_moments([g.mean(0) for g in groups], [g.var(0) for g in groups], pictures)
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, everything.var(0), rtol=1e-12)


def test_the_integer_moments_agree_with_the_plain_ones() -> None:
    many = [update("W8A8", seed, samples=9, pictures=100 * seed) for seed in range(1, 5)]
    profile = total(many).finish(BASE).profiles["W8A8"]
    means = [tensors["stem.conv.mean"] for _, tensors, _ in many]
    variances = [tensors["stem.conv.variance"] for _, tensors, _ in many]
    mean, variance = plain_moments(means, variances, [one.pictures for one, _, _ in many])
    np.testing.assert_allclose(profile["stem.conv.mean"], mean, atol=2.0**-20)
    np.testing.assert_allclose(profile["stem.conv.variance"], variance, atol=2.0**-20)


def test_moments_of_one_device_come_back_even_when_the_mean_is_large() -> None:
    one_header, tensors, samples = update("W8A8", 1, 100)
    tensors["stem.conv.mean"][:] = 1000.3
    tensors["stem.conv.variance"][:] = 0.01
    profile = PartialSum(SMALL.spec).add(one_header, tensors, samples).finish(BASE).profiles["W8A8"]
    np.testing.assert_allclose(profile["stem.conv.variance"], 0.01, atol=2.0**-19)


def test_shared_tensors_are_averaged_over_all_precisions_and_profiles_over_their_own() -> None:
    one, other = update("W8A8", 1, 10), update("W1A8", 2, 30)
    merged = total([one, other]).finish(BASE)
    base = BASE.with_profile(Precision(8, 8)).profiles["W8A8"]
    step = "layer1.0.conv1.weight_log_step"
    np.testing.assert_allclose(merged.profiles["W8A8"][step], base[step] + one[1][step], rtol=1e-6)
    assert set(merged.profiles) == {"W8A8", "W1A8"}
    weight = "layer1.0.conv1.weight"
    expected = plain_mean(BASE.shared[weight], [one[1][weight], other[1][weight]], [10, 30])
    np.testing.assert_allclose(merged.shared[weight], expected, rtol=1e-7, atol=1e-9)


def test_a_precision_that_measured_no_pictures_keeps_its_moments() -> None:
    base = BASE.with_profile(Precision(8, 8))
    merged = total([update("W8A8", 1, 10, pictures=0)]).finish(base)
    np.testing.assert_array_equal(
        merged.profiles["W8A8"]["stem.conv.variance"], base.profiles["W8A8"]["stem.conv.variance"]
    )


def test_a_profile_that_nobody_trained_stays() -> None:
    base = total([update("W4A8", 4, 10)]).finish(BASE)
    merged = total([update("W8A8", 1, 10)]).finish(base)
    assert merged.profiles["W4A8"] == base.profiles["W4A8"]


def test_sums_that_might_overflow_are_refused_before_they_do() -> None:
    one_header, tensors, _ = update("W8A8", 1, 1)
    tensors["stem.conv.weight"][:] = 2.0**20
    held = PartialSum(SMALL.spec).add(one_header, tensors, 1 << 10)
    with pytest.raises(MergeError, match=r"stem\.conv\.weight"):
        held.add(one_header, tensors, 1 << 10)
    with pytest.raises(MergeError, match="does not fit 64 bits"):
        PartialSum(SMALL.spec).add(one_header, tensors, 1 << 32)


def test_what_passes_the_headroom_check_fits_as_often_as_promised() -> None:
    one_header, tensors, _ = update("W8A8", 1, 1, pictures=1)
    tensors["stem.conv.weight"][:] = 2.0**10
    with pytest.raises(MergeError, match=f"{MAX_UPDATES} such updates"):
        check_headroom(one_header, tensors, 1 << 11)
    check_headroom(one_header, tensors, (1 << 11) - 1)
    held = PartialSum(SMALL.spec).add(one_header, tensors, (1 << 11) - 1)
    for _ in range(10):  # doubles: 1024 updates
        held = held.merge(held)
    held.finish(BASE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    one_header, tensors, samples = update("W8A8", 1, 10)
    tensors["stem.conv.weight"].flat[0] = value
    with pytest.raises(MergeError, match=r"stem\.conv\.weight"):
        PartialSum(SMALL.spec).add(one_header, tensors, samples)


def test_another_architecture_is_refused() -> None:
    other = replace(header("W8A8", 1), architecture=SMALL.spec.replace("classes=3", "classes=4"))
    with pytest.raises(MergeError, match="expected"):
        PartialSum(other.architecture).merge(total([update("W8A8", 1, 1)]))


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(MergeError, match="at least one"):
        PartialSum(SMALL.spec).finish(BASE)


def test_memory_does_not_grow_with_the_number_of_devices() -> None:
    def peak_bytes(devices: int) -> int:
        tracemalloc.start()
        result = PartialSum(SMALL.spec)
        for seed in range(devices):
            result = result.add(*update("W8A8", seed, 10))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(2)  # caches of the table fill once
    assert peak_bytes(64) < 1.05 * peak_bytes(4)


def several(seed: int, samples: int, content: Content = Content.DELTA) -> Update:
    """An update with the profiles of two precisions."""
    precisions = Precision(8, 8), Precision(1, 8)
    tensors = delta_tensors(*precisions, seed=seed)
    return Header(SMALL.spec, "fp32", "W8A8+W1A8", content, samples), tensors, samples


def test_an_update_with_two_profiles_moves_both_and_the_weights_once() -> None:
    one = several(seed=1, samples=10)
    merged = total([one, update("W1A8", seed=2, samples=30)]).finish(BASE)
    name = "layer1.0.conv1.weight"
    other = delta_tensors(Precision(1, 8), seed=2)
    expected = plain_mean(BASE.shared[name], [one[1][name], other[name]], [10, 30])
    np.testing.assert_allclose(merged.shared[name], expected, rtol=1e-6, atol=1e-9)
    step = "stream1.activation_log_step"
    start = BASE.with_profile(Precision(8, 8)).profiles["W8A8"][step]
    np.testing.assert_allclose(merged.profiles["W8A8"][step], start + one[1][step], rtol=1e-6)
    expected = plain_mean(start, [one[1][f"W1A8/{step}"], other[step]], [10, 30])
    np.testing.assert_allclose(merged.profiles["W1A8"][step], expected, rtol=1e-6)
    mean = "stem.conv.mean"
    expected, _ = plain_moments(
        [one[1][f"W1A8/{mean}"], other[mean]],
        [one[1]["W1A8/stem.conv.variance"], other["stem.conv.variance"]],
        [10, 30],
    )
    np.testing.assert_allclose(merged.profiles["W1A8"][mean], expected, atol=1e-6)


def test_a_calibration_moves_profiles_and_no_weight() -> None:
    merged = total([several(1, 10, Content.PROFILES), several(2, 30, Content.PROFILES)]).finish(BASE)
    assert merged.shared is BASE.shared
    assert set(merged.profiles) == {"W8A8", "W1A8"}


def test_a_calibration_beside_updates_does_not_dilute_them() -> None:
    trained = update("W8A8", seed=1, samples=10)
    alone, beside = total([trained]).finish(BASE), total([trained, several(2, 30, Content.PROFILES)]).finish(BASE)
    for name in BASE.shared:
        np.testing.assert_array_equal(alone.shared[name], beside.shared[name])
