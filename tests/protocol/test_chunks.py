from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chunks import Assembly, chunk_at, chunk_count, from_bitmap, to_bitmap
from protocol.errors import LocalProtocolError, Malformed, Refusal, RemoteProtocolError
from protocol.messages import MAX_CHUNKS, MAX_PAYLOAD_BYTES


@given(st.binary(min_size=1, max_size=200), st.integers(1, 64), st.randoms())
def test_chunks_in_any_order_and_number_make_the_whole(payload: bytes, size: int, random: "st.DrawFn") -> None:
    """BF-030."""
    assembly = Assembly(len(payload), size, sha256(payload).digest())
    numbers = [*range(assembly.count)] * 2
    random.shuffle(numbers)
    for number in numbers:
        assembly.add(number, chunk_at(payload, size, number))
    assert assembly.complete
    assert assembly.payload() == payload


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_a_bitmap_says_which(case: tuple[int, set[int]]) -> None:
    """BF-032."""
    count, numbers = case
    assert set(from_bitmap(to_bitmap(numbers, count), count)) == numbers


def test_a_bitmap_by_hand() -> None:
    """BF-032."""
    assert to_bitmap([0, 9], 10) == bytes([0b00000001, 0b00000010])


@pytest.mark.parametrize("bitmap", [b"", b"\x00", b"\x00\x04", b"\x00\x00\x00"])
def test_a_bitmap_of_the_wrong_length_or_with_bits_past_the_end_is_refused(bitmap: bytes) -> None:
    """BF-032."""
    with pytest.raises(Malformed):
        list(from_bitmap(bitmap, 10))


def test_the_missing_are_asked_for() -> None:
    """BF-032."""
    assembly = Assembly(25, 10, b"")
    assembly.add(1, b"x" * 10)
    assert list(from_bitmap(assembly.missing, 3)) == [0, 2]


@pytest.mark.parametrize(("number", "size"), [(0, 9), (0, 11), (2, 10), (3, 5), (-1, 10)])
def test_a_chunk_of_wrong_size_or_number_is_refused(number: int, size: int) -> None:
    """BF-033."""
    with pytest.raises(Malformed):
        Assembly(25, 10, b"").add(number, b"x" * size)


def test_a_wrong_digest_forgets_every_chunk() -> None:
    """BF-033."""
    assembly = Assembly(3, 10, sha256(b"abc").digest())
    assembly.add(0, b"abd")
    with pytest.raises(RemoteProtocolError) as caught:
        assembly.payload()
    assert caught.value.refusal is Refusal.WRONG_DIGEST
    assert not assembly.complete
    assembly.add(0, b"abc")
    assert assembly.payload() == b"abc"


@pytest.mark.parametrize(
    ("payload_bytes", "chunk_bytes"), [(0, 10), (10, 0), (MAX_PAYLOAD_BYTES + 1, 1 << 20), (MAX_CHUNKS + 1, 1)]
)
def test_sizes_out_of_bounds_are_refused_before_anything_is_kept(payload_bytes: int, chunk_bytes: int) -> None:
    """BF-030."""
    with pytest.raises(Malformed):
        chunk_count(payload_bytes, chunk_bytes)


def test_asking_for_a_chunk_that_is_not_there_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        to_bitmap([10], 10)
