"""Bytes made to harm: bombs that declare more than they hold, and payloads of every recipe with a few bytes changed."""

from functools import cache, partial

import msgpack
import numpy as np
import pytest
from golden import RECIPES
from hostile import assert_bounded, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SMALL, random_tensors

from protocol.codec.base import Coder
from protocol.codec.bitpack import packed_bytes
from protocol.codec.golomb import Golomb
from protocol.codec.huffman import Huffman
from protocol.codec.payload import Content, Header, decode, encode, read_header
from protocol.codec.range_coder import RangeCoder
from protocol.codec.range_queue import LibraryDecoder, LibraryEncoder, PlainDecoder, PlainEncoder
from protocol.codec.recipe import Recipe
from protocol.codec.together import Floats, GroupCodec, Halves, Ranges, Sizes
from protocol.codec.varint import varint
from protocol.errors import Incomplete
from protocol.networks import cnn4, resnet18
from protocol.precision import Float32, Precision
from protocol.reader import Reader
from protocol.schema import to_map

N = 1 << 15
GOLOMB, HUFFMAN = Golomb(), Huffman()
LIBRARY, PLAIN = RangeCoder(LibraryEncoder, LibraryDecoder), RangeCoder(PlainEncoder, PlainDecoder)


def golomb(number: int, shift: int, unary: bytes) -> bytes:
    """A head with whatever lower bits and codes follow."""
    return varint(number) + bytes([shift]) + varint(len(unary)) + unary + bytes(5 * N)


def words(lengths: list[int], data: bytes) -> bytes:
    """A Huffman table of 16 symbols, and words."""
    return (
        bytes(low | high << 4 for low, high in zip(lengths[::2], lengths[1::2], strict=True)) + varint(len(data)) + data
    )


def queue(word: int) -> bytes:
    """As many words as a range coder may have."""
    return varint(N + 2) + np.full(N + 2, word, dtype="<u4").tobytes()


DEEP = [*range(1, 15), 14, 0]
LONGEST = packed_bytes(14 * N, 1)
MOST = packed_bytes(2 * N, 1)

CODER_BOMBS = {
    "golomb, every code and no gap": (GOLOMB, golomb(N, 0, bytes(N // 8))),
    "golomb, every code and 31 lower bits": (GOLOMB, golomb(N, 31, bytes(N // 8))),
    "golomb, gaps that add up beyond 2^31": (GOLOMB, golomb(N, 31, bytes(N // 8)).replace(bytes(N), b"\xff" * N)),
    "golomb, one code and only zeros": (GOLOMB, golomb(1, 0, bytes(MOST))),
    "golomb, one code and only ones": (GOLOMB, golomb(1, 0, b"\xff" * MOST)),
    "golomb, four thousand million codes": (GOLOMB, varint(2**32) + bytes(99)),
    "golomb, four thousand million bytes": (GOLOMB, b"\x01\x00" + varint(2**32) + bytes(99)),
    "huffman, words of 14 bits": (HUFFMAN, words(DEEP, b"\xff" * LONGEST)),
    "huffman, words of one bit and 13 times their bytes": (HUFFMAN, words(DEEP, bytes(LONGEST))),
    "huffman, a table of nothing but the longest": (HUFFMAN, words([14] * 16, b"\xff" * LONGEST)),
    "huffman, four thousand million bytes": (HUFFMAN, b"\x88" * 8 + varint(2**32) + bytes(99)),
    "rc, as many words as there may be": (LIBRARY, queue(0x01010101)),
    "rc, the largest words": (LIBRARY, queue(0xFFFFFFFE)),
    "rc, four thousand million words": (LIBRARY, varint(2**32) + bytes(99)),
    "rc in plain Python, as many words as there may be": (PLAIN, queue(0x01010101)),
}


@pytest.mark.parametrize("symbols", [2, 3, 16])
@pytest.mark.parametrize("name", CODER_BOMBS)
def test_a_coder_takes_memory_for_the_codes_that_were_asked_for(name: str, symbols: int) -> None:
    """BF-042."""
    coder, data = CODER_BOMBS[name]
    assert_bounded(lambda: coder.decode(Reader(data), N, symbols), N)


CODED: list[tuple[str, Coder]] = [("golomb", GOLOMB), ("huffman", HUFFMAN), ("rc", LIBRARY), ("rc, plain", PLAIN)]


@pytest.mark.parametrize(("name", "coder"), CODED, ids=[name for name, _ in CODED])
@given(st.integers(0, 300), st.integers(2, 17), st.randoms(use_true_random=False), st.data())
@settings(max_examples=60)
def test_codes_with_changed_bytes_are_codes_or_refused(
    name: str, coder: Coder, count: int, symbols: int, random: "st.DrawFn", data: st.DataObject
) -> None:
    """BF-042: nearer to what an encoder writes than arbitrary bytes ever come."""
    codes_N = np.array([random.randrange(symbols) ** 2 // symbols for _ in range(count)], dtype=np.uint8)
    changed = mutated(coder.encode(codes_N, symbols), data)
    decoded_N = survives(lambda: coder.decode(Reader(changed), count, symbols))
    assert decoded_N is None or (decoded_N.shape == (count,) and (not count or int(decoded_N.max()) < symbols))


def mutated(data: bytes, draw: st.DataObject) -> bytes:
    """Some bytes changed, left out, put in or doubled."""
    result = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(result)))
        piece = draw.draw(
            st.one_of(st.binary(max_size=6), st.sampled_from([b"\xff" * 4, b"\x00" * 4, bytes(result[:8])]))
        )
        result[at : at + draw.draw(st.integers(0, 6))] = piece
    return bytes(result)


# --- tensors and payloads ---


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tensor_takes_a_few_times_its_own_memory(recipe: str) -> None:
    """BF-042: as it was encoded, and with every byte behind its head set."""
    codec = Recipe.parse(recipe).weights
    values_N = np.random.default_rng(0).normal(size=N).astype(np.float32)
    data = bytes(codec.encode(values_N, np.random.default_rng(0), 1))
    for changed in (data, data[:64] + b"\xff" * len(data), data[:64] + b"\x55" * len(data), data[: len(data) // 2]):
        assert_bounded(lambda changed=changed: codec.read(Reader(changed), N, 1).values(), N)


TINY = cnn4(width=0.25, input_shape=(1, 8, 8), classes=3)
W4A8 = Precision.parse("W4A8")


@cache
def payload(recipe: str, content: Content) -> bytes:
    header = Header(TINY.spec, recipe, "W4A8", content, pictures=40, seed=3)
    return encode(header, random_tensors(TINY, W4A8), np.random.default_rng(0))


@given(st.sampled_from(RECIPES), st.sampled_from(list(Content)), st.data())
@settings(max_examples=250)
def test_payloads_of_every_recipe_with_changed_bytes_are_finite_or_refused(
    recipe: str, content: Content, data: st.DataObject
) -> None:
    """BF-042, BF-043."""
    good = payload(recipe, content)
    head = len(good) - len(_rest(good))
    changed = data.draw(st.one_of(st.just(good[:head] + mutated(good[head:], data)), st.just(mutated(good, data))))
    found = survives(lambda: decode(changed))
    if found is not None:
        assert all(np.isfinite(values).all() for values in found.tensors.values())


def _rest(data: bytes) -> memoryview:
    """What follows the header."""
    length = int.from_bytes(data[3:5], "little")
    return memoryview(data)[5 + length :]


@pytest.mark.parametrize("content", list(Content))
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_payload_takes_a_few_times_the_memory_of_its_table(recipe: str, content: Content) -> None:
    """BF-042."""
    header = Header(SMALL.spec, recipe, "W4A8", content, pictures=40, seed=3)
    good = encode(header, random_tensors(SMALL, W4A8), np.random.default_rng(0))
    values = sum(spec.size for spec in header.specs)
    head = len(good) - len(_rest(good))
    for changed in (good, good[:head] + b"\xff" * len(good), good[:head] + b"\x01" * len(good), good[:-1]):
        assert_bounded(partial(decode, changed), values)


@pytest.mark.parametrize("recipe", ["fp32", "half", "sign", "uniform:4", "eden:1", "eden:0.5"])
def test_a_giant_in_a_few_bytes_takes_none_of_its_memory(recipe: str) -> None:
    """BF-042: 178 million values, most of which the bytes lack. Coders may hold a tensor of zeros in a byte."""
    giant = resnet18(width=4, input_shape=(3, 32, 32))
    header = Header(giant.spec, recipe, "W4A8", Content.DELTA, pictures=40)
    packed = msgpack.packb(to_map(header))
    data = b"BF\x01" + len(packed).to_bytes(2, "little") + packed + bytes(10_000)
    survives(partial(read_header, data))  # the table, once
    assert survives(partial(decode, data)) is None
    assert_bounded(partial(decode, data), 16 * 10_000)  # as many values as half a bit each can be in them


def _read_group(codec: GroupCodec, data: bytes, sizes_S: Sizes) -> Float32:
    return codec.read(Reader(data), sizes_S).values()


GROUPS: list[GroupCodec] = [Floats(), Ranges(), Halves()]


@pytest.mark.parametrize("codec", GROUPS, ids=lambda codec: type(codec).__name__)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
@settings(max_examples=60)
def test_small_tensors_of_any_bytes_are_finite_or_refused(
    codec: GroupCodec, sizes: list[int], data: st.DataObject
) -> None:
    """BF-042, BF-043."""
    sizes_S = np.array(sizes, dtype=np.int64)
    values_N = np.sin(np.arange(sizes_S.sum())).astype(np.float32)
    good = bytes(codec.encode(values_N, sizes_S, np.random.default_rng(0)))
    for changed in (mutated(good, data), data.draw(st.binary(max_size=2 * len(good)))):
        found_N = survives(partial(_read_group, codec, changed, sizes_S))
        assert found_N is None or (found_N.shape == values_N.shape and np.isfinite(found_N).all())


@pytest.mark.parametrize("codec", GROUPS, ids=lambda codec: type(codec).__name__)
def test_small_tensors_take_a_few_times_their_own_memory(codec: GroupCodec) -> None:
    """BF-042."""
    sizes_S = np.full(N // 16, 16, dtype=np.int64)
    good = bytes(codec.encode(np.ones(N, np.float32), sizes_S, np.random.default_rng(0)))
    for changed in (good, good[: len(good) // 2], b"\xff" * len(good)):
        assert_bounded(partial(_read_group, codec, changed, sizes_S), N)


def test_small_tensors_of_any_prefix_are_incomplete() -> None:
    """BF-042."""
    sizes_S = np.array([1, 5, 9], dtype=np.int64)
    for codec in GROUPS:
        good = bytes(codec.encode(np.ones(15, np.float32), sizes_S, np.random.default_rng(0)))
        for end in range(len(good)):
            with pytest.raises(Incomplete):
                _read_group(codec, good[:end], sizes_S)
