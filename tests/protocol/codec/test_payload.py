import struct
import tracemalloc
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from golden import RECIPES
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL, random_tensors

from protocol.architecture import MOMENTS, Role
from protocol.codec.payload import Content, Header, decode, encode
from protocol.codec.recipe import DEFAULT_RECIPE
from protocol.errors import Incomplete, LocalProtocolError, Malformed, RemoteProtocolError, Unsupported
from protocol.networks import resnet18
from protocol.precision import Precision

W4A8 = Precision.parse("W4A8")
HEADER = Header(SMALL.spec, DEFAULT_RECIPE, "W4A8", Content.DELTA, pictures=40)
TENSORS = random_tensors(SMALL, W4A8)
RNG = np.random.default_rng(0)
PAYLOAD = encode(HEADER, TENSORS, RNG)


@pytest.mark.parametrize("content", list(Content))
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_brings_every_tensor_back_in_its_shape(recipe: str, content: Content) -> None:
    """BF-040, BF-055, BF-056."""
    header = replace(HEADER, recipe=recipe, content=content)
    payload = decode(encode(header, TENSORS, RNG))
    assert payload.header == header
    assert {name: values.shape for name, values in payload.tensors.items()} == {
        spec.name: spec.shape for spec in header.specs
    }
    for spec in header.specs:
        if spec.role in {Role.MEAN, Role.VARIANCE}:
            assert np.allclose(payload.tensors[spec.name], TENSORS[spec.name], rtol=1e-2, atol=1e-3)


def test_several_profiles_follow_one_another() -> None:
    """BF-064."""
    header = replace(HEADER, recipe="fp32", precision="W4A8+W1A8+fp32")
    tensors = random_tensors(SMALL, *header.precisions)
    payload = decode(encode(header, tensors, RNG))
    assert payload.header.precisions == (W4A8, Precision.parse("W1A8"), Precision.parse("fp32"))
    assert "W1A8/stem.conv.mean" in payload.tensors
    for name, values in tensors.items():
        np.testing.assert_array_equal(payload.tensors[name], values)


def test_moments_over_no_pictures_are_left_out() -> None:
    """BF-044: of a network of a hundred thousand parameters they would outweigh an update of a three-hundredth."""
    with_moments, without = HEADER.specs, replace(HEADER, pictures=0).specs
    assert {spec.role for spec in with_moments} - {spec.role for spec in without} == set(MOMENTS)
    assert decode(encode(replace(HEADER, pictures=0), TENSORS, RNG)).tensors.keys() == {spec.name for spec in without}
    whole = replace(HEADER, content=Content.WEIGHTS)
    assert whole.specs == replace(whole, pictures=0).specs


def test_profiles_alone_take_a_few_kilobytes() -> None:
    """BF-065: federated calibration of six widths at full width, against 44.7 MB for the model at fp32."""
    header = Header(resnet18().spec, "sign", "W8A8+W6A8+W4A8+W3A8+W2A8+W1A8", Content.PROFILES, 40)
    tensors = random_tensors(header.network, *header.precisions)
    payload = decode(encode(header, tensors, RNG))
    assert set(payload.tensors) == {spec.name for spec in header.specs}
    assert not any(spec.role is Role.WEIGHT for spec in header.specs)
    assert len(encode(header, tensors, RNG)) < 200_000


@pytest.mark.parametrize("precision", ["W4A8+W4A8", "W4A8+", "+W4A8", "W4A8+W04A8", "W8A8+" * 8 + "W1A8"])
def test_profiles_are_named_once_and_canonically(precision: str) -> None:
    """BF-041, BF-064."""
    with pytest.raises(RemoteProtocolError):
        encode(replace(HEADER, precision=precision), TENSORS, RNG)


def test_the_layout_by_hand() -> None:
    """BF-040: magic, version, header length, header, then weights, other deltas, moments, and nothing else."""
    header = msgpack.packb({1: SMALL.spec, 2: "fp32", 3: "fp32", 4: 1, 5: 40, 6: 0})
    fp32 = Precision.parse("fp32")
    tensors = random_tensors(SMALL, fp32)
    specs = sorted(SMALL.tensors(fp32), key=lambda spec: (spec.role is not Role.WEIGHT, spec.role in MOMENTS))
    body = b"".join(tensors[spec.name].astype("<f4").tobytes() for spec in specs)
    expected = b"BF\x01" + struct.pack("<H", len(header)) + header + body
    assert encode(Header(SMALL.spec, "fp32", "fp32", Content.DELTA, 40), tensors, RNG) == expected


def test_the_default_recipe_is_below_a_twenty_fifth_of_fp32() -> None:
    """The figure of the first release, on the network of the demo."""
    network = "resnet18:width=0.125,stem=3x3,input=1x32x32,classes=10"
    header = Header(network, DEFAULT_RECIPE, "W4A8", Content.DELTA, 1)
    tensors = random_tensors(header.network, W4A8)
    assert 25 * len(encode(header, tensors, RNG)) < len(encode(replace(header, recipe="fp32"), tensors, RNG))


def test_every_strict_prefix_is_incomplete() -> None:
    """BF-042."""
    for end in range(len(PAYLOAD)):
        with pytest.raises(Incomplete):
            decode(PAYLOAD[:end])


def test_a_byte_too_many_is_refused() -> None:
    """BF-040."""
    with pytest.raises(Malformed, match="left over"):
        decode(PAYLOAD + b"\x00")


@given(st.binary(max_size=400))
def test_any_bytes_raise_only_the_protocols_own_errors(data: bytes) -> None:
    """BF-042."""
    for start in (b"", b"BF\x01", PAYLOAD[:90]):
        with pytest.raises(RemoteProtocolError):
            decode(start + data)


@given(st.integers(0, len(PAYLOAD) - 1), st.integers(1, 255))
def test_a_flipped_byte_decodes_to_finite_tensors_or_is_refused(position: int, flip: int) -> None:
    """BF-042, BF-043."""
    data = bytearray(PAYLOAD)
    data[position] ^= flip
    try:
        tensors = decode(bytes(data)).tensors
    except RemoteProtocolError:
        return
    assert all(np.isfinite(values).all() for values in tensors.values())


def _with_header(values: dict[int, object]) -> bytes:
    packed = msgpack.packb(values)
    return b"BF\x01" + struct.pack("<H", len(packed)) + packed


GOOD = {1: SMALL.spec, 2: "sign", 3: "W4A8", 4: 1, 5: 40}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"PK\x03\x04" + bytes(99), Malformed, id="a zip file"),
        pytest.param(b"BF\x02" + bytes(99), Unsupported, id="payload version 2"),
        pytest.param(b"BF\x01\xff\xff" + bytes(99), Malformed, id="header of 65535 bytes"),
        pytest.param(_with_header({}), Malformed, id="empty header"),
        pytest.param(_with_header({**GOOD, 1: "resnet50"}), Malformed, id="unknown architecture"),
        pytest.param(_with_header({**GOOD, 1: SMALL.spec.replace("8x8", "08x8")}), Malformed, id="spec not canonical"),
        pytest.param(_with_header({**GOOD, 2: "zip"}), Unsupported, id="unknown recipe"),
        pytest.param(_with_header({**GOOD, 2: "uniform:9"}), Unsupported, id="nine bits"),
        pytest.param(_with_header({**GOOD, 2: "ef+ef+sign"}), Unsupported, id="feedback twice"),
        pytest.param(_with_header({**GOOD, 2: "topk:0.1+sign"}), Malformed, id="recipe not canonical"),
        pytest.param(_with_header({**GOOD, 6: 1 << 32}), Malformed, id="a seed of 33 bits"),
        pytest.param(_with_header({**GOOD, 3: "W4A5"}), Unsupported, id="unknown precision"),
        pytest.param(_with_header({**GOOD, 3: "W04A8"}), Malformed, id="precision not canonical"),
        pytest.param(_with_header({**GOOD, 3: "W32A32"}), Malformed, id="fp32 by another name"),
        pytest.param(_with_header({**GOOD, 4: 3}), Malformed, id="unknown content"),
        pytest.param(_with_header({**GOOD, 5: -1}), Malformed, id="negative pictures"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(data: bytes, error: type[RemoteProtocolError]) -> None:
    """BF-040, BF-041."""
    with pytest.raises(error):
        decode(data)


def test_a_header_that_names_a_giant_allocates_nothing() -> None:
    """BF-042: the widest network allowed has 178 M parameters; its header alone costs below 2 MB."""
    giant = "resnet18:width=4,stem=3x3,input=3x32x32,classes=10"
    data = _with_header({**GOOD, 1: giant})
    tracemalloc.start()
    try:
        with pytest.raises(Incomplete):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_negative_variance_is_refused() -> None:
    """BF-043."""
    name = next(spec.name for spec in SMALL.tensors(W4A8) if spec.role is Role.VARIANCE)
    with pytest.raises(Malformed, match="variance"):
        decode(encode(HEADER, TENSORS | {name: -np.ones_like(TENSORS[name])}, RNG))


@pytest.mark.parametrize("value", [np.nan, np.inf, 2e30])
def test_what_is_not_finite_is_never_sent(value: float) -> None:
    """BF-043."""
    name = "stem.conv.weight"
    with pytest.raises(LocalProtocolError, match=name):
        encode(HEADER, TENSORS | {name: np.full_like(TENSORS[name], value)}, RNG)


def test_a_missing_or_misshapen_tensor_is_never_sent() -> None:
    without = {name: values for name, values in TENSORS.items() if name != "classifier.bias"}
    with pytest.raises(LocalProtocolError, match="missing"):
        encode(HEADER, without, RNG)
    with pytest.raises(LocalProtocolError, match="shape"):
        encode(HEADER, without | {"classifier.bias": np.zeros(4, np.float32)}, RNG)


def test_deltas_of_side_tensors_take_a_byte_and_absolute_values_two() -> None:
    """BF-055, BF-044."""
    delta, weights = (
        len(encode(replace(HEADER, content=content), TENSORS, RNG)) for content in (Content.DELTA, Content.WEIGHTS)
    )
    side = [spec.size for spec in SMALL.tensors(W4A8) if spec.role not in {Role.WEIGHT, Role.MEAN, Role.VARIANCE}]
    assert weights - delta == sum(2 * size + 1 - (size + 8) for size in side)


def test_tensors_draw_from_words_of_their_own() -> None:
    """BF-045: equal weights under one seed are rotated differently, and under another seed differently again."""
    header = replace(HEADER, recipe="eden:1", seed=5)
    tensors = TENSORS | dict.fromkeys(
        ("layer1.0.conv1.weight", "layer1.0.conv2.weight"), np.ones((4, 4, 3, 3), np.float32)
    )
    decoded = decode(encode(header, tensors, RNG)).tensors
    other = decode(encode(replace(header, seed=6), tensors, RNG)).tensors
    assert (decoded["layer1.0.conv1.weight"] != decoded["layer1.0.conv2.weight"]).any()
    assert (decoded["layer1.0.conv1.weight"] != other["layer1.0.conv1.weight"]).any()
