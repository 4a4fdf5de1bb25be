"""Federated averaging in integers: exact, in any order, and equal to the plain mean."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from fleet import delta_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SMALL

from aggregator.merge import MAX_UPDATES, MergeError, PartialSum, check_headroom
from aggregator.merge.counter import Counter
from aggregator.merge.kernel import GROUP, available, chosen
from aggregator.model import GlobalModel
from protocol.architecture import Tensors
from protocol.codec.coded import Dense
from protocol.codec.payload import CodedPayload, Content, Header, decode, encode, read
from protocol.precision import Float32, Precision

BASE = GlobalModel.fresh(SMALL.spec, seed=3)
Update = tuple[Header, Tensors, int]


def coded(one_header: Header, tensors: Tensors) -> CodedPayload:
    """An update as the aggregator reads it."""
    return read(encode(one_header, tensors, np.random.default_rng(0)))


def partial_sum(*updates: Update) -> PartialSum:
    result = PartialSum(SMALL.spec)
    for one_header, tensors, samples in updates:
        result.add(coded(one_header, tensors), samples)
    return result


def plain_mean(base_X: Float32, deltas: Sequence[Float32], samples: Sequence[int]) -> npt.NDArray[np.float64]:
    """Federated averaging as the paper writes it, which the integers must agree with."""
    weights = np.array(samples, dtype=np.float64) / sum(samples)
    return base_X + sum(weight * delta.astype(np.float64) for weight, delta in zip(weights, deltas, strict=True))


def plain_moments(
    means: Sequence[Float32], variances: Sequence[Float32], pictures: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and variance of all pictures together, which the integers must agree with."""
    mean = np.average(np.array(means, dtype=np.float64), axis=0, weights=pictures)
    spread = np.array(variances, dtype=np.float64) + (np.array(means, dtype=np.float64) - mean) ** 2
    return mean, np.average(spread, axis=0, weights=pictures)


def header(precision: str, pictures: int, recipe: str = "fp32", seed: int = 0) -> Header:
    return Header(SMALL.spec, recipe, precision, Content.DELTA, pictures, seed)


def update(
    precision: str, seed: int, samples: int, pictures: int | None = None, recipe: str = "fp32", rotation: int = 0
) -> Update:
    tensors = delta_tensors(Precision.parse(precision), seed=seed)
    return header(precision, samples if pictures is None else pictures, recipe, rotation), tensors, samples


updates = st.lists(
    st.builds(
        update,
        st.sampled_from(["W8A8", "W4A8", "W1A8", "fp32"]),
        st.integers(0, 1 << 20),
        st.integers(1, 1 << 16),
        st.integers(0, 1 << 16),
        st.sampled_from(["fp32", "sign", "stosign", "eden:1", "eden:2", "stc:0.1", "step:0.1"]),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(updates=updates, data=st.data())
def test_any_grouping_in_any_order_gives_the_same_bits(updates: list[Update], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(updates))
    cut = data.draw(st.integers(0, len(updates)))
    expected = partial_sum(*updates).finish(BASE).to_bytes()
    for first, second in ((shuffled[:cut], shuffled[cut:]), (shuffled[cut:], shuffled[:cut])):
        left = partial_sum(*first)
        left.merge(partial_sum(*second))
        assert left.finish(BASE).to_bytes() == expected


def test_the_integer_sum_agrees_with_the_plain_mean() -> None:
    many = [update("W8A8", seed, samples=50 * seed + 7) for seed in range(1, 6)]
    merged = partial_sum(*many).finish(BASE)
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
    profile = partial_sum(*many).finish(BASE).profiles["W8A8"]
    means = [tensors["stem.conv.mean"] for _, tensors, _ in many]
    variances = [tensors["stem.conv.variance"] for _, tensors, _ in many]
    mean, variance = plain_moments(means, variances, [one.pictures for one, _, _ in many])
    np.testing.assert_allclose(profile["stem.conv.mean"], mean, atol=2.0**-20)
    np.testing.assert_allclose(profile["stem.conv.variance"], variance, atol=2.0**-20)


def test_moments_of_one_device_come_back_even_when_the_mean_is_large() -> None:
    one_header, tensors, samples = update("W8A8", 1, 100)
    tensors["stem.conv.mean"][:] = 1000.3
    tensors["stem.conv.variance"][:] = 0.01
    profile = partial_sum((one_header, tensors, samples)).finish(BASE).profiles["W8A8"]
    np.testing.assert_allclose(profile["stem.conv.variance"], 0.01, atol=2.0**-19)


def test_shared_tensors_are_averaged_over_all_precisions_and_profiles_over_their_own() -> None:
    one, other = update("W8A8", 1, 10), update("W1A8", 2, 30)
    merged = partial_sum(one, other).finish(BASE)
    base = BASE.with_profile(Precision(8, 8)).profiles["W8A8"]
    step = "layer1.0.conv1.weight_log_step"
    np.testing.assert_allclose(merged.profiles["W8A8"][step], base[step] + one[1][step], rtol=1e-6)
    assert set(merged.profiles) == {"W8A8", "W1A8"}
    weight = "layer1.0.conv1.weight"
    expected = plain_mean(BASE.shared[weight], [one[1][weight], other[1][weight]], [10, 30])
    np.testing.assert_allclose(merged.shared[weight], expected, rtol=1e-7, atol=1e-9)


def test_a_precision_that_measured_no_pictures_keeps_its_moments() -> None:
    base = BASE.with_profile(Precision(8, 8))
    merged = partial_sum(update("W8A8", 1, 10, pictures=0)).finish(base)
    np.testing.assert_array_equal(
        merged.profiles["W8A8"]["stem.conv.variance"], base.profiles["W8A8"]["stem.conv.variance"]
    )


def test_a_profile_that_nobody_trained_stays() -> None:
    base = partial_sum(update("W4A8", 4, 10)).finish(BASE)
    merged = partial_sum(update("W8A8", 1, 10)).finish(base)
    assert merged.profiles["W4A8"] == base.profiles["W4A8"]


def test_sums_that_might_overflow_are_refused_before_they_do() -> None:
    one_header, tensors, _ = update("W8A8", 1, 1)
    tensors["stem.conv.weight"][:] = 2.0**20
    held = partial_sum((one_header, tensors, 1 << 10))
    before = held.finish(BASE).to_bytes()
    with pytest.raises(MergeError, match=r"stem\.conv\.weight"):
        held.add(coded(one_header, tensors), 1 << 10)
    with pytest.raises(MergeError, match=r"stem\.conv\.weight"):
        held.merge(held)
    assert held.finish(BASE).to_bytes() == before
    with pytest.raises(MergeError, match="does not fit 64 bits"):
        partial_sum((one_header, tensors, 1 << 32))


def test_what_passes_the_headroom_check_fits_as_often_as_promised() -> None:
    one_header, tensors, _ = update("W8A8", 1, 1, pictures=1)
    tensors["stem.conv.weight"][:] = 2.0**10
    with pytest.raises(MergeError, match=f"{MAX_UPDATES} such updates"):
        check_headroom(coded(one_header, tensors), 1 << 11)
    check_headroom(coded(one_header, tensors), (1 << 11) - 1)
    held = partial_sum((one_header, tensors, (1 << 11) - 1))
    for _ in range(10):  # doubles: 1024 updates
        held.merge(held)
    held.finish(BASE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    one_header, tensors, samples = update("W8A8", 1, 10)
    update_ = coded(one_header, tensors)
    broken = replace(update_, apart={**update_.apart, "stem.conv.weight": Dense(np.full(36, value, np.float32))})
    with pytest.raises(MergeError, match=r"stem\.conv\.weight"):
        PartialSum(SMALL.spec).add(broken, samples)


def test_another_architecture_is_refused() -> None:
    other = replace(header("W8A8", 1), architecture=SMALL.spec.replace("classes=3", "classes=4"))
    with pytest.raises(MergeError, match="expected"):
        PartialSum(other.architecture).merge(partial_sum(update("W8A8", 1, 1)))


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(MergeError, match="at least one"):
        PartialSum(SMALL.spec).finish(BASE)


@pytest.mark.parametrize("recipe", ["fp32", "sign", "stosign", "eden:1"])
def test_memory_does_not_grow_with_the_number_of_devices(recipe: str) -> None:
    def peak_bytes(devices: int) -> int:
        tracemalloc.start()
        result = PartialSum(SMALL.spec)
        for seed in range(devices):
            one_header, tensors, samples = update("W8A8", seed, 10, recipe=recipe)
            result.add(coded(one_header, tensors), samples + seed)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(20)  # caches of the table fill once
    assert peak_bytes(80) < 1.2 * peak_bytes(20)  # as many as are ever added up together, and more


def several(seed: int, samples: int, content: Content = Content.DELTA) -> Update:
    """An update with the profiles of two precisions."""
    precisions = Precision(8, 8), Precision(1, 8)
    tensors = delta_tensors(*precisions, seed=seed)
    return Header(SMALL.spec, "fp32", "W8A8+W1A8", content, samples), tensors, samples


def test_an_update_with_two_profiles_moves_both_and_the_weights_once() -> None:
    one = several(seed=1, samples=10)
    merged = partial_sum(one, update("W1A8", seed=2, samples=30)).finish(BASE)
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
    merged = partial_sum(several(1, 10, Content.PROFILES), several(2, 30, Content.PROFILES)).finish(BASE)
    assert merged.shared is BASE.shared
    assert set(merged.profiles) == {"W8A8", "W1A8"}


def test_a_calibration_beside_updates_does_not_dilute_them() -> None:
    trained = update("W8A8", seed=1, samples=10)
    beside = partial_sum(trained, several(2, 30, Content.PROFILES)).finish(BASE)
    alone = partial_sum(trained).finish(BASE)
    for name in BASE.shared:
        np.testing.assert_array_equal(alone.shared[name], beside.shared[name])


@pytest.mark.parametrize(
    "recipe", ["fp32", "sign", "stosign", "eden:1", "eden:2", "uniform:4", "step:0.1+rc", "stc:0.05"]
)
@pytest.mark.parametrize("devices", [1, 3, 8, 19])
def test_coded_updates_add_up_to_the_mean_of_what_they_decode_to(recipe: str, devices: int) -> None:
    many = [update("W8A8", seed, samples=100 + seed % 5, recipe=recipe, rotation=seed % 2) for seed in range(devices)]
    decoded = [decode(encode(one, tensors, np.random.default_rng(0))).tensors for one, tensors, _ in many]
    merged = partial_sum(*many).finish(BASE)
    for name, base in BASE.shared.items():
        expected = plain_mean(base, [tensors[name] for tensors in decoded], [samples for _, _, samples in many])
        np.testing.assert_allclose(merged.shared[name], expected, rtol=1e-5, atol=1e-6)


def test_a_step_that_all_share_is_counted_and_one_of_ones_own_looked_up() -> None:
    """Both ways at once: the first groups are all of one step."""
    one_header, tensors, _ = update("W8A8", 1, 10, recipe="sign")
    same = [(one_header, tensors, 10)] * 40
    other = [update("W8A8", seed, 10 + seed, recipe="sign") for seed in range(2, 14)]
    decoded = decode(encode(one_header, tensors, np.random.default_rng(0))).tensors
    apart = [decode(encode(header_, tensors_, np.random.default_rng(0))).tensors for header_, tensors_, _ in other]
    merged = partial_sum(*same, *other).finish(BASE)
    name = "layer1.0.conv1.weight"
    samples = [10] * 40 + [samples for _, _, samples in other]
    expected = plain_mean(BASE.shared[name], [decoded[name]] * 40 + [one[name] for one in apart], samples)
    np.testing.assert_allclose(merged.shared[name], expected, rtol=1e-6, atol=1e-9)


@given(st.integers(1, 70), st.integers(1, 9), st.integers(0, 1 << 32))
def test_counters_count(vectors: int, size: int, seed: int) -> None:
    packed = np.random.default_rng(seed).integers(0, 256, (vectors, size), dtype=np.uint8)
    counter = Counter(size, available()[chosen()])
    for first in range(0, vectors, GROUP):
        counter.add(list(packed[first : first + GROUP]))
    planes = np.unpackbits(counter.planes(), axis=1, bitorder="little").astype(np.int64)
    counts = sum(plane << level for level, plane in enumerate(planes))
    np.testing.assert_array_equal(counts, np.unpackbits(packed, axis=1, bitorder="little").sum(0, dtype=np.int64))


@pytest.mark.skipif("native" not in available(), reason="the extension module aggregator.merge._kernel is not built")
@settings(max_examples=25, deadline=None)
@given(updates=updates)
def test_compiled_and_plain_loops_give_the_same_model(updates: list[Update]) -> None:
    merged = []
    for kernel in available().values():
        held = PartialSum(SMALL.spec, kernel)
        for one_header, tensors, samples in updates:
            held.add(coded(one_header, tensors), samples)
        merged.append(held.finish(BASE).to_bytes())
    assert merged[0] == merged[1]


# --- votes ---


@pytest.mark.parametrize("kernel", available())
@pytest.mark.parametrize("recipe", ["sign", "stosign"])
def test_a_vote_moves_by_the_sign_that_more_pictures_have(recipe: str, kernel: str) -> None:
    """By hand from what was decoded; the scale of one device is a thousand times the others' and turns no sign."""
    several = [update("W4A8", seed, samples, recipe=recipe) for seed, samples in enumerate((30, 10, 25, 40, 15))]
    several[3] = (several[3][0], {name: 1000 * values for name, values in several[3][1].items()}, 40)
    total = PartialSum(SMALL.spec, available()[kernel], vote=True)
    payloads = [encode(head, tensors, np.random.default_rng(0)) for head, tensors, _ in several]
    for payload, (_, _, samples) in zip(payloads, several, strict=True):
        total.add(read(payload), samples)
    model = total.finish(BASE)
    sent, weights = [decode(payload).tensors for payload in payloads], [samples for _, _, samples in several]
    for spec in several[0][0].layout.weights:
        votes = sum(n * np.sign(tensors[spec.name]) for n, tensors in zip(weights, sent, strict=True))
        scale = sum(n * np.abs(tensors[spec.name]).max() for n, tensors in zip(weights, sent, strict=True)) / 120
        wanted = BASE.shared[spec.name] + scale * np.sign(votes)
        np.testing.assert_allclose(model.shared[spec.name], wanted, atol=1e-5)
    gain = several[0][0].layout.deltas[0].name
    mean = sum(n * tensors[gain] for n, tensors in zip(weights, sent, strict=True)) / 120
    np.testing.assert_allclose(model.shared[gain], BASE.shared[gain] + mean, atol=1e-5)


def test_votes_in_parts_are_the_vote_of_all() -> None:
    several = [update("W4A8", seed, 10, recipe="sign") for seed in range(21)]
    parts = [PartialSum(SMALL.spec, vote=True) for _ in range(3)]
    whole = PartialSum(SMALL.spec, vote=True)
    for number, (head, tensors, samples) in enumerate(several):
        parts[number % 3].add(coded(head, tensors), samples)
        whole.add(coded(head, tensors), samples)
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].finish(BASE).to_bytes() == whole.finish(BASE).to_bytes()
