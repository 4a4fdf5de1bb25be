"""A round settled from payloads: against plain numpy on what was decoded, in any order, in bounded memory, on disk."""

import gc
import tracemalloc
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fleet import delta_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SMALL

from aggregator.merge import MergeError
from aggregator.model import GlobalModel
from aggregator.robust import Entry, Merging, Settled, settle, spool
from aggregator.robust.clipping import norm_of
from protocol import networks
from protocol.architecture import Tensors
from protocol.codec.payload import Content, Header, Payload, decode, encode, read
from protocol.precision import Precision

BASE = GlobalModel.fresh(SMALL.spec, seed=3)
WEIGHT = "layer1.0.conv1.weight"
STEP = "layer1.0.conv1.weight_log_step"
SIDE = "classifier.bias"


def payload(seed: int, precision: str = "W8A8", recipe: str = "fp32", *, lie: float = 1.0, pictures: int = 50) -> bytes:
    tensors = honest(seed, precision)
    for name in tensors:
        tensors[name] *= np.float32(abs(lie) if name.endswith(".variance") else lie)
    header = Header(SMALL.spec, recipe, precision, Content.DELTA, pictures)
    return encode(header, tensors, np.random.default_rng(seed))


def honest(seed: int, precision: str) -> Tensors:
    """What all see, and noise of each device's own."""
    common, own = (delta_tensors(Precision.parse(precision), seed=each) for each in (99, seed))
    return {name: values + np.float32(0.3) * own[name] for name, values in common.items()}


def settled(way: str, payloads: Sequence[bytes], folder: Path, samples: Sequence[int] | None = None) -> Settled:
    by_digest = {sha256(data).hexdigest(): data for data in payloads}
    counts = samples or [50] * len(payloads)
    entries = [
        Entry(f"d{index}", sha256(data).hexdigest(), count)
        for index, (data, count) in enumerate(zip(payloads, counts, strict=True))
    ]
    return settle(BASE, Merging.parse(way), entries, by_digest.__getitem__, folder)


def decoded(payloads: Sequence[bytes]) -> list[Payload]:
    return [decode(data) for data in payloads]


ROUND = [payload(seed) for seed in range(7)]
LIES = [payload(seed, lie=-4.0) for seed in range(7, 10)]


@pytest.mark.parametrize("name", [WEIGHT, SIDE, "stem.conv.weight"])
def test_coordinates_are_settled_as_plain_numpy_does(name: str, tmp_path: Path) -> None:
    stacked = np.stack([update.tensors[name] for update in decoded(ROUND + LIES)]).astype(np.float64)
    ordered = np.sort(stacked, axis=0)
    for way, expected in (("median", np.median(stacked, axis=0)), ("trimmed:0.3", ordered[3:7].mean(axis=0))):
        found = settled(way, ROUND + LIES, tmp_path).model.shared[name]
        np.testing.assert_allclose(found, BASE.shared[name] + expected, atol=1e-7)


def test_clipping_is_the_plain_mean_of_what_was_scaled(tmp_path: Path) -> None:
    norms = np.array([norm_of(read(data)) for data in ROUND + LIES])
    scale = np.minimum(1, np.median(norms) / norms)
    expected = np.mean([s * u.tensors[WEIGHT] for s, u in zip(scale, decoded(ROUND + LIES), strict=True)], axis=0)
    found = settled("clip:median", ROUND + LIES, tmp_path).model.shared[WEIGHT]
    np.testing.assert_allclose(found, BASE.shared[WEIGHT] + expected, atol=1e-7)


@pytest.mark.parametrize(("way", "count"), [("krum:3", 1), ("multi-krum:0.3", 5), ("clip:median+krum:3", 1)])
def test_whoever_is_believed_is_honest_and_weighs_alike(way: str, count: int, tmp_path: Path) -> None:
    result = settled(way, ROUND + LIES, tmp_path, samples=[50] * 7 + [1 << 31] * 3)
    believed = sorted({f"d{index}" for index in range(10)} - result.left_out)
    assert len(believed) == count
    assert {"d7", "d8", "d9"} <= result.left_out
    assert min(result.distances[name] for name in ("d7", "d8", "d9")) > 2 * max(
        result.distances[f"d{index}"] for index in range(7)
    )
    if not way.startswith("clip"):
        mean = np.mean([decode(ROUND[int(name[1:])]).tensors[WEIGHT] for name in believed], axis=0)
        np.testing.assert_allclose(result.model.shared[WEIGHT], BASE.shared[WEIGHT] + mean, atol=1e-7)


@pytest.mark.parametrize("way", ["clip:median", "median", "trimmed:0.3", "krum:3", "multi-krum:3"])
def test_poisoned_steps_and_moments_are_outvoted_whatever_the_weights_say(way: str, tmp_path: Path) -> None:
    """An attacker's weights may be harmless, and only what belongs to its precision be poisoned."""
    poisoned = []
    for seed in range(7, 10):
        tensors = honest(seed, "W8A8")
        for name, values in tensors.items():
            if name.endswith(("log_step", ".mean", ".variance")):
                values[...] = 25.0
        poisoned.append(encode(decode(ROUND[0]).header, tensors, np.random.default_rng(0)))
    profile = settled(way, ROUND + poisoned, tmp_path).model.profiles["W8A8"]
    clean = [update.tensors for update in decoded(ROUND)]
    for name in ("stem.conv.mean", "stem.conv.variance"):
        assert (profile[name] <= np.max([each[name] for each in clean], axis=0) + 1.0).all()
    base = BASE.with_profile(Precision(8, 8)).profiles["W8A8"][STEP]
    assert (profile[STEP] <= base + np.max([each[STEP] for each in clean], axis=0) + 1e-6).all()


def test_moments_that_agree_come_back_and_pooled_spread_counts(tmp_path: Path) -> None:
    one = settled("median", [ROUND[0]] * 3, tmp_path).model.profiles["W8A8"]
    sent = decode(ROUND[0]).tensors
    for name in ("stem.conv.mean", "stem.conv.variance"):
        np.testing.assert_allclose(one[name], sent[name], rtol=1e-6)


def test_profiles_are_settled_among_those_who_sent_them(tmp_path: Path) -> None:
    binary = [payload(seed, "W4A8") for seed in range(20, 23)]
    profiles = settled("trimmed:0.3", ROUND + binary, tmp_path).model.profiles
    assert profiles.keys() == {"W8A8", "W4A8"}
    steps = np.median([decode(data).tensors[STEP] for data in binary], axis=0)
    base = BASE.with_profile(Precision(4, 8)).profiles["W4A8"][STEP]
    # Of three, a share of 0.3 trims none.
    mean = np.mean([decode(data).tensors[STEP] for data in binary], axis=0)
    np.testing.assert_allclose(profiles["W4A8"][STEP], base + mean, rtol=1e-6)
    median = settled("median", ROUND + binary, tmp_path).model.profiles
    np.testing.assert_allclose(median["W4A8"][STEP], base + steps, rtol=1e-6)


def test_a_calibration_settles_profiles_alone(tmp_path: Path) -> None:
    header = Header(SMALL.spec, "fp32", "W8A8", Content.PROFILES, 9)
    measured = [encode(header, honest(seed, "W8A8"), np.random.default_rng(0)) for seed in range(3)]
    result = settled("multi-krum:0.3", measured, tmp_path)
    assert result.model.shared == BASE.shared
    expected = np.median([honest(seed, "W8A8")["stem.conv.mean"] for seed in range(3)], axis=0)
    np.testing.assert_allclose(result.model.profiles["W8A8"]["stem.conv.mean"], expected, rtol=1e-6)
    assert not result.distances


@settings(max_examples=6)
@given(
    way=st.sampled_from(["clip:median", "median", "trimmed:0.2", "krum:2", "multi-krum:2", "clip:0.2+trimmed:0.2"]),
    recipe=st.sampled_from(["fp32", "sign", "stosign", "eden:1", "eden:2", "uniform:4"]),
    order=st.permutations(range(8)),
)
def test_the_order_of_arrival_changes_no_bit_and_every_codec_is_read_in_slices(
    way: str, recipe: str, order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    precisions = ("W8A8", "W4A8")
    payloads = [payload(seed, precisions[seed % 2], recipe) for seed in range(8)]
    first = settled(way, payloads, folder)
    again = settled(way, [payloads[index] for index in order], folder)
    assert again.model.to_bytes() == first.model.to_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "SLICE_BYTES", 8 * 4 * 400)  # a few hundred values at a time
        sliced = settled(way, payloads, folder).model
    for name, values in first.model.shared.items():
        np.testing.assert_allclose(sliced.shared[name], values, atol=1e-7)


def test_one_bit_updates_take_a_bit_a_value_on_disk(tmp_path: Path) -> None:
    signs = settled("median", [payload(seed, recipe="sign") for seed in range(5)], tmp_path).spool_bytes
    floats = settled("median", ROUND[:5], tmp_path).spool_bytes
    assert signs < floats / 4  # side tensors of so small a network are most of it


# --- what can go wrong ---


def test_nothing_and_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="no update to merge"):
        settled("median", [], tmp_path)
    other = networks.parse(SMALL.spec.replace("classes=3", "classes=4"))
    header = Header(other.spec, "fp32", "fp32", Content.DELTA, 0)
    foreign = {spec.name: np.zeros(spec.shape, np.float32) for spec in header.specs}
    with pytest.raises(MergeError, match="classes=4"):
        settled("median", [encode(header, foreign, np.random.default_rng(0))], tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.Spool, "add", full)
    before = _open_files()
    with pytest.raises(OSError, match="No space"):
        settled("median", ROUND, tmp_path)
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert _open_files() <= before, "fewer where what earlier tests left was collected"


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_spool_has_no_name_while_it_is_there(tmp_path: Path) -> None:
    """So that a kill leaves nothing either."""
    with spool.Spool(tmp_path) as one:
        one.add(("weight", "w"), 0, 3, read(ROUND[0]).weights[WEIGHT])
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["median", "clip:median+multi-krum:0.3"])
def test_memory_does_not_grow_with_the_number_of_devices(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 updates of 180,000 weights are 140 MB at full precision; they are read a megabyte at a time."""
    monkeypatch.setattr(spool, "SLICE_BYTES", 1 << 20)
    network = networks.parse("resnet18:width=0.125,stem=3x3,input=3x32x32,classes=10")
    base = GlobalModel.fresh(network.spec, seed=0)
    header = Header(network.spec, "sign", "fp32", Content.DELTA, 0)
    names = [f"{index:064x}" for index in range(200)]

    def fetch(digest: str) -> bytes:
        rng = np.random.default_rng(int(digest, 16) % 4)
        tensors = {spec.name: rng.standard_normal(spec.shape, dtype=np.float32) for spec in header.specs}
        return encode(header, tensors, rng)

    kept = {index: fetch(names[index]) for index in range(4)}
    size = sum(values.nbytes for values in base.shared.values())
    tracemalloc.start()
    settle(
        base,
        Merging.parse(way),
        [Entry(name, name, 1) for name in names],
        lambda digest: kept[int(digest, 16) % 4],
        tmp_path,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * size + 6 * spool.SLICE_BYTES
    assert 200 * size > 6 * peak
