"""One file for every width: each slice is the direct export, and whatever is damaged is refused."""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from hostile import MULTIPLE, SLACK_BYTES, peak_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import usual_stem

from export.errors import ExportError
from export.nested import export_nested, read_nested, write_nested
from export.passes import to_onnx
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.networks import FAMILIES, cnn4, parse, resnet18
from protocol.precision import Precision, parse_several

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Write = Callable[[Architecture, str], bytes]

WIDTHS = "W8A8+W6A8+W4A8+W3A8+W2A8+W1A8"
MIXED = "W8A8+W5A4+W4A3+W2A2+W1A1"
SMALL = cnn4(width=0.0625, input_shape=(1, 8, 8), classes=2, nested=True)


@pytest.fixture
def write(make_tensors: MakeTensors) -> Write:
    return lambda network, names: write_nested(network, parse_several(names), lambda p: make_tensors(network, p))


@pytest.mark.parametrize("names", [WIDTHS, MIXED])
@pytest.mark.parametrize(
    ("family", "variant"),
    [
        (name, norm)
        for name, family in FAMILIES.items()
        for norm in ("", ",norm=group")
        if family.normalised or not norm
    ],
)
def test_every_slice_is_the_direct_export(
    family: str, variant: str, names: str, write: Write, make_tensors: MakeTensors
) -> None:
    network = parse(f"{family}:width=0.0625{usual_stem(family)},input=1x16x16,classes=10{variant},codes=nested")
    nested = read_nested(write(network, names))
    assert nested.architecture == network
    for precision in parse_several(names):
        direct = to_onnx(network, precision, make_tensors(network, precision))
        assert serialize(nested.slice(precision)) == serialize(direct)


@pytest.mark.parametrize(
    "network",
    [cnn4(nested=True), cnn4(width=0.25, nested=True), resnet18(width=0.25, nested=True)],
    ids=lambda network: network.spec,
)
def test_it_is_at_most_a_tenth_larger_than_the_8_bit_model(
    network: Architecture, write: Write, make_tensors: MakeTensors
) -> None:
    widest = Precision(8, 8)
    assert len(write(network, WIDTHS)) <= 1.1 * len(serialize(to_onnx(network, widest, make_tensors(network, widest))))


def test_a_further_width_costs_its_folded_numbers_only(write: Write) -> None:
    network = cnn4(nested=True)
    channels = sum(layer.out_shape[0] for layer in network.layers if layer.weight_shape)
    one, two = (len(write(network, names)) for names in ("W8A8", "W8A8+W4A8"))
    assert two - one <= 9 * channels


def test_every_slice_is_checked_before_anyone_gets_the_file(make_tensors: MakeTensors, digits: Digits) -> None:
    network = cnn4(width=0.25, input_shape=(1, 32, 32), nested=True)
    precisions = parse_several(MIXED)
    made = export_nested(network, precisions, lambda p: make_tensors(network, p), pictures_NCHW=digits[0][:20])
    assert list(made.slices) == list(precisions)
    assert all(part.report.bit_equal for part in made.slices.values())
    assert all(part.report.pictures == 20 for part in made.slices.values())
    assert read_nested(made.data).profiles.keys() == set(precisions)


def test_a_width_it_does_not_hold_is_refused_by_name(write: Write) -> None:
    nested = read_nested(write(SMALL, "W8A8+W2A8"))
    with pytest.raises(ExportError, match=r"precision W4A8: the nested model holds W8A8\+W2A8"):
        nested.slice(Precision(4, 8))


@pytest.mark.parametrize(
    ("network", "names", "message"),
    [
        (cnn4(), "W8A8", "expected one with codes=nested"),
        (SMALL, "W8A8+W7A8", "precision W7A8: nested codes have"),
        (SMALL, "W8A8+fp32", "precision fp32: a nested model holds integer precisions"),
        (SMALL, "W16A8", "precision W16A8: the exporter writes"),
    ],
)
def test_what_cannot_be_nested_is_refused(network: Architecture, names: str, message: str, write: Write) -> None:
    with pytest.raises(ExportError, match=message):
        write(network, names)


def test_precisions_of_two_models_are_refused(make_tensors: MakeTensors) -> None:
    def tensors_of(precision: Precision) -> Tensors:
        tensors = make_tensors(SMALL, precision)
        tensors["conv2.weight"][0] += precision.weight_bits
        return tensors

    with pytest.raises(ExportError, match=r"tensor conv2\.weight at W2A8 is not that of the first precision"):
        write_nested(SMALL, parse_several("W8A8+W2A8"), tensors_of)


@pytest.fixture(scope="module")
def data(make_tensors: MakeTensors) -> bytes:
    network = parse("binary18:width=0.0625,input=1x8x8,classes=2,codes=nested")
    return write_nested(network, parse_several("W8A8+W2A2+W1A1"), lambda p: make_tensors(network, p))


@pytest.fixture(scope="module")
def tiny(make_tensors: MakeTensors) -> bytes:
    return write_nested(SMALL, parse_several("W8A8+W1A1"), lambda p: make_tensors(SMALL, p))


def test_every_strict_prefix_is_refused(tiny: bytes) -> None:
    for length in range(len(tiny)):
        with pytest.raises(ExportError, match="not a nested model"):
            read_nested(tiny[:length])


def test_anything_after_the_end_is_refused(tiny: bytes) -> None:
    with pytest.raises(ExportError, match="1 bytes left over"):
        read_nested(tiny + b"\0")


def opened(data: bytes) -> tuple[bytes, bytearray]:
    """Head, and the arrays out of their zlib stream."""
    start = data.index(b"\x78\xda")
    return data[: start - 4], bytearray(zlib.decompress(data[start:]))


def closed(head: bytes, body: bytes) -> bytes:
    packed = zlib.compress(body)
    return head + struct.pack("<I", len(packed)) + packed


def test_arrays_cut_short_or_too_long_are_refused(tiny: bytes) -> None:
    head, body = opened(tiny)
    assert read_nested(closed(head, body)).architecture == SMALL
    for length in range(0, len(body), 7):
        with pytest.raises(ExportError, match="not a nested model"):
            read_nested(closed(head, body[:length]))
    with pytest.raises(ExportError, match="1 bytes left over"):
        read_nested(closed(head, body + b"\0"))


def test_a_stream_that_swells_is_stopped(tiny: bytes) -> None:
    head, _ = opened(tiny)
    with pytest.raises(ExportError, match=r"expected one whole zlib stream of at most \d+ bytes"):
        read_nested(closed(head, bytes(100_000_000)))


def test_a_stream_that_swells_takes_memory_for_its_table_only(tiny: bytes) -> None:
    head, _ = opened(tiny)
    bomb = closed(head, bytes(20_000_000))

    def read() -> None:
        with suppress(ExportError):
            read_nested(bomb)

    assert peak_bytes(read) < MULTIPLE * 4 * SMALL.parameters + SLACK_BYTES


@settings(max_examples=60)
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_arrays_with_changed_bytes_pass_or_are_refused_and_their_slices_are_models(
    edits: list[tuple[float, int]], data: bytes
) -> None:
    head, body = opened(data)
    for place, value in edits:
        body[int(place * len(body))] = value
    with suppress(ExportError):
        read_nested(closed(head, body)).slice(Precision(1, 1))


@settings(max_examples=200)
@given(edits=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_changed_head_passes_or_is_refused(edits: list[tuple[int, int]], tiny: bytes) -> None:
    damaged = bytearray(tiny)
    for place, value in edits:
        damaged[place] = value
    with suppress(ExportError):
        read_nested(bytes(damaged))


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ExportError, match="not a nested model"):
        read_nested(b"BFN\1" + noise)
