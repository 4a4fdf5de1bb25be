"""Envelopes, messages, topics, chunks and bitmaps under bytes that were made to harm."""

from functools import partial
from hashlib import sha256

import msgpack
import pytest
from golden import KEY, MESSAGES
from hostile import peak_bytes, survives
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.chunks import Assembly, chunk_count, from_bitmap
from protocol.envelope import Envelope, open_envelope
from protocol.errors import RemoteProtocolError
from protocol.messages import MAX_CHUNKS, MAX_PAYLOAD_BYTES, NUMBERS, TYPES
from protocol.schema import MAX_MAP_BYTES, from_map, to_map, unpack_map
from protocol.topics import Topics, Upward

TOPIC = "bitfleet/v1/home/d/pi-07/state"
MOST_OF_A_MAP = 80 * MAX_MAP_BYTES
"""An empty map takes one byte on the wire, and 72 in Python's memory."""


def signed(content: bytes) -> bytes:
    """Any bytes under a signature that is right: what a device gone bad could send."""
    return KEY.sign(b"bitfleet/1" + len(TOPIC).to_bytes(2, "little") + TOPIC.encode() + content) + content


def opened(data: bytes) -> Envelope:
    return open_envelope(data, topic=TOPIC, key_of={"pi-07": KEY.public}.get)


def content_of(message: object) -> bytes:
    head = {1: 1, 2: NUMBERS[type(message)], 3: "pi-07", 4: 1, 5: 1, 6: 5}
    return msgpack.packb({**head, 7: to_map(message)})


@given(
    st.sampled_from(MESSAGES), st.lists(st.tuples(st.integers(8, 400), st.binary(max_size=5)), min_size=1, max_size=4)
)
@settings(max_examples=250)
def test_a_signed_map_with_changed_bytes_is_a_message_or_refused(
    message: object, changes: list[tuple[int, bytes]]
) -> None:
    """BF-014, BF-015: nearer to a message than arbitrary maps ever come."""
    content = bytearray(content_of(message))
    for at, piece in changes:
        start = at % len(content)
        content[start : start + len(piece)] = piece
    envelope = survives(partial(opened, signed(bytes(content))))
    if envelope is not None:
        assert from_map(type(envelope.message), to_map(envelope.message)) == envelope.message


@pytest.mark.parametrize("cls", TYPES.values(), ids=lambda cls: cls.__name__)
@given(
    values=st.dictionaries(
        st.integers(0, 20) | st.text(max_size=2), st.integers() | st.text() | st.none() | st.floats()
    )
)
@settings(max_examples=40)
def test_any_map_is_a_message_or_refused(cls: type, values: dict[object, object]) -> None:
    """BF-015."""
    survives(partial(from_map, cls, values))


BOMBS = {
    "nothing but lists": b"\xdd\x00\x00\xff\xf0" + b"\x90" * 0xFFF0,
    "lists in lists": b"\x91" * MAX_MAP_BYTES,
    "nothing but maps": b"\xdd\x00\x00\xff\xf0" + b"\x80" * 0xFFF0,
    "a list of four thousand million": b"\x81\x01\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "a text of four thousand million": b"\x81\x01\xdb\xff\xff\xff\xff",
    "bytes of four thousand million": b"\x81\x01\xc6\xff\xff\xff\xff",
    "an extension of four thousand million": b"\x81\x01\xc9\xff\xff\xff\xff\x05",
    "a time beyond every calendar": b"\x81\x01\xc7\x0c\xff" + b"\xff" * 12,
    "a key that is a list": b"\x81\x91\x01\x01",
    "a map above the limit": b"\x81\x01\xc6\x7f\xff\xff\xff" + bytes(4 * MAX_MAP_BYTES),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_map_takes_memory_for_its_own_bytes_only(name: str) -> None:
    """BF-013, BF-014."""
    assert peak_bytes(partial(unpack_map, BOMBS[name])) < MOST_OF_A_MAP + len(BOMBS[name])
    with pytest.raises(RemoteProtocolError):
        opened(signed(BOMBS[name]))


@given(st.binary(max_size=40), st.integers(0, 300))
def test_any_bytes_are_a_bitmap_or_refused(data: bytes, count: int) -> None:
    """BF-032."""
    numbers = survives(lambda: list(from_bitmap(data, count)))
    assert numbers is None or all(0 <= number < count for number in numbers)


@given(st.integers(-(2**70), 2**70), st.integers(-(2**70), 2**70))
def test_any_sizes_give_few_chunks_or_are_refused(payload_bytes: int, chunk_bytes: int) -> None:
    """BF-030."""
    count = survives(partial(chunk_count, payload_bytes, chunk_bytes))
    assert count is None or 1 <= count <= MAX_CHUNKS


@given(st.lists(st.tuples(st.integers(-2, 9), st.binary(max_size=12)), max_size=20))
def test_any_chunks_make_the_payload_or_nothing(chunks: list[tuple[int, bytes]]) -> None:
    """BF-033."""
    assembly = Assembly(45, 10, sha256(bytes(45)).digest())
    for number, data in chunks:
        survives(partial(assembly.add, number, data))
    for number in from_bitmap(assembly.missing, assembly.count):
        assembly.add(number, bytes(10 if number < 4 else 5))
    assert survives(assembly.payload) in {None, bytes(45)}


def test_an_upload_that_is_announced_takes_nothing_yet() -> None:
    """BF-030: a gibibyte in the most chunks there may be."""
    assert peak_bytes(lambda: Assembly(MAX_PAYLOAD_BYTES, 65_536, bytes(32)).missing) < 200_000


parts = st.one_of(
    st.text(max_size=5), st.sampled_from(["d", "up", "s0", "pi-07", "c", "m", "0", "16384", "²", "aggregator"])
)


@given(st.lists(parts, max_size=7))
def test_any_topic_is_one_of_a_device_or_refused(segments: list[str]) -> None:
    """BF-001, BF-002."""
    found = survives(partial(Topics("home").parse_upward, "/".join(["bitfleet/v1/home", *segments])))
    assert found is None or isinstance(found, Upward)
    assert found is None or (found.device != "aggregator" and found.chunk < MAX_CHUNKS)
