"""Canonical Huffman codes: the table is nothing but the length of each symbol's code word.

D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proc. IRE 1952; E. S. Schwartz, B. Kallick,
"Generating a canonical prefix encoding", Comm. ACM 1964. Words of one length are consecutive numbers in the order of
their symbols; with a length more, counting goes on from the next one, shifted: [2, 1, 3, 3] stands for 10, 0, 110, 111.

Layout: 4 bits a symbol, lower half of a byte first, with the length of its word (1 to 14; 0 where it does not occur;
15 where it is the only one that does, which needs no bits); then, unless there is only one or no code at all, `varint`
u and u bytes with the words, first bit highest. Bits after the last word are zero.

A word tells where the next begins, which seems to leave a decoder one symbol at a time. This one looks up, for every
bit of a block, how long a word that began there would be, and then follows the chain of beginnings by doubling.
"""

import heapq
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.codec.bitpack import pack, unpack
from protocol.codec.varint import read_varint, varint
from protocol.errors import Malformed
from protocol.precision import UInt8
from protocol.reader import Reader

Int64 = npt.NDArray[np.int64]

LONGEST: Final = 14
_ALONE: Final = 15
_BLOCK: Final = 1 << 13
"""Bits, or symbols, at once: their tables stay in the cache."""


class Huffman:
    """Whole bits a symbol: close to the entropy unless one symbol has most of the probability."""

    def encode(self, codes_N: UInt8, symbols: int) -> bytes:
        """With lengths from the codes' own histogram."""
        lengths_S = _lengths(np.bincount(codes_N, minlength=symbols))
        table = pack(np.append(lengths_S, np.zeros(symbols % 2, np.uint8)).astype(np.uint8), 4)
        if (lengths_S == _ALONE).any() or not codes_N.size:
            return table
        words_S = _words(lengths_S)
        bits = np.concatenate(
            [_spell(words_S[codes], lengths_S[codes]) for codes in np.array_split(codes_N, -(-codes_N.size // _BLOCK))]
        )
        data = np.packbits(bits).tobytes()
        return table + varint(len(data)) + data

    def decode(self, reader: Reader, count: int, symbols: int) -> UInt8:
        """Codes uint8[count]."""
        lengths_S = unpack(reader, symbols + symbols % 2, 4)
        if lengths_S[symbols:].any():
            raise Malformed("half a byte after the Huffman table must be zero")
        lengths_S = lengths_S[:symbols]
        if not count:
            if lengths_S.any():
                raise Malformed("Huffman table of no codes: every length must be zero")
            return np.zeros(0, dtype=np.uint8)
        if (lengths_S == _ALONE).any():
            if lengths_S.astype(bool).sum() > 1:
                raise Malformed("Huffman table with a symbol that is alone and others beside it")
            return np.full(count, lengths_S.argmax(), dtype=np.uint8)
        _check_complete(lengths_S)
        size = read_varint(reader, packed_words(count), "bytes of Huffman words")
        return _follow(np.frombuffer(reader.take(size, "Huffman words"), dtype=np.uint8), count, lengths_S)


def packed_words(count: int) -> int:
    """Bytes that `count` words of the greatest length fill."""
    return -(-count * LONGEST // 8)


def _lengths(counts_S: Int64) -> UInt8:
    """Word lengths that make the sum of counts times lengths smallest, none above `LONGEST`."""
    used = np.flatnonzero(counts_S)
    lengths_S = np.zeros(counts_S.size, dtype=np.uint8)
    if used.size < 2:
        lengths_S[used] = _ALONE
        return lengths_S
    weights = counts_S[used]
    while True:
        depths = _depths(weights.tolist())
        if max(depths) <= LONGEST:
            lengths_S[used] = depths
            return lengths_S
        weights = weights // 2 + 1  # flatter: at most 256 symbols fit words of eight bits


def _depths(weights: list[int]) -> list[int]:
    """Depth of each leaf in a Huffman tree."""
    heap: list[tuple[int, int, tuple[int, ...]]] = [(weight, index, (index,)) for index, weight in enumerate(weights)]
    heapq.heapify(heap)
    depths = [0] * len(weights)
    while len(heap) > 1:
        (weight, tie, leaves), (other, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        for leaf in leaves + others:
            depths[leaf] += 1
        heapq.heappush(heap, (weight + other, tie, leaves + others))
    return depths


def _words(lengths_S: UInt8) -> Int64:
    """The word of each symbol as a number of as many bits as its length."""
    words_S, word, before = np.zeros(lengths_S.size, dtype=np.int64), 0, 0
    for symbol in _in_order(lengths_S):
        length = int(lengths_S[symbol])
        word <<= length - before
        words_S[symbol], before = word, length
        word += 1
    return words_S


def _in_order(lengths_S: UInt8) -> Int64:
    """The symbols that have words, in the order of these."""
    return np.argsort(lengths_S, kind="stable")[int((lengths_S == 0).sum()) :]


def _check_complete(lengths_S: UInt8) -> None:
    """Check that every string of bits begins with exactly one word (L. G. Kraft, 1949, with equality)."""
    used = lengths_S[lengths_S > 0].astype(np.int64)
    if int((1 << (LONGEST - used)).sum()) != 1 << LONGEST:
        raise Malformed("Huffman table: the lengths are not those of a complete code")


def _spell(words_N: Int64, lengths_N: UInt8) -> UInt8:
    """Words one after the other, one bit a byte."""
    places_L = np.arange(int(lengths_N.max()))
    shifts_NL = lengths_N[:, None].astype(np.int64) - 1 - places_L
    bits_NL = (words_N[:, None] >> np.maximum(shifts_NL, 0)) & 1
    return bits_NL[shifts_NL >= 0].astype(np.uint8)


def _follow(data: UInt8, count: int, lengths_S: UInt8) -> UInt8:
    """The symbols of `count` words that fill the data."""
    symbol_of, length_of = _tables(lengths_S)
    padded = np.concatenate([data, np.zeros(4, dtype=np.uint8)]).astype(np.int64)
    codes_N, done, start = np.empty(count, dtype=np.uint8), 0, 0
    while done < count:
        if start >= 8 * data.size:
            raise Malformed(f"{data.size} bytes of Huffman words hold {done}: expected {count}")
        first = start // 8
        windows = _windows(padded[first : first + _BLOCK // 8 + 3])
        lengths = length_of[windows]
        begins = _chain(start % 8, lengths)[: count - done]
        codes_N[done : done + begins.size] = symbol_of[windows[begins]]
        done += begins.size
        start = 8 * first + int(begins[-1] + lengths[begins[-1]])
    if -(-start // 8) != data.size:
        raise Malformed(f"{data.size} bytes of Huffman words: {count} words end at bit {start}")
    if start % 8 and int(data[-1]) & (0xFF >> start % 8):
        raise Malformed("bits after the last Huffman word must be zero")
    return codes_N


def _tables(lengths_S: UInt8) -> tuple[UInt8, Int64]:
    """For every string of `LONGEST` bits, the symbol it begins with and the length of that symbol's word."""
    order = _in_order(lengths_S)
    lengths = lengths_S[order].astype(np.int64)
    room = 1 << (LONGEST - lengths)
    return np.repeat(order.astype(np.uint8), room), np.repeat(lengths, room)


def _windows(padded: Int64) -> Int64:
    """The `LONGEST` bits from every bit on, three bytes before the end excepted."""
    triples = (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:])[:, None]
    return (triples >> (24 - LONGEST - np.arange(8)) & ((1 << LONGEST) - 1)).reshape(-1)


def _chain(start: int, steps: Int64) -> Int64:
    """start, start + steps[start], and so on, as far as `steps` reaches."""
    end = steps.size
    jump = np.minimum(np.arange(end) + steps, end)
    jump = np.append(jump, end)
    visited = np.array([start])
    while visited[-1] < end:
        visited = np.concatenate([visited, jump[visited]])
        jump = jump[jump]
    return visited[: int(np.searchsorted(visited, end))]
