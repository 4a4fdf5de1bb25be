"""Adaptive range coding: within a few bytes of the entropy, whatever the symbols' probabilities are.

G. N. N. Martin, "Range encoding: an algorithm for removing redundancy from a digitised message", 1979; the coder itself
is the queue of the library `constriction` (R. Bamler, arXiv 2201.01741), with words of 32 bits, a state of 64 and
frequencies of 24. Where the library is not installed, the same bytes are made and read here, many times slower.

**Model.** Codes are taken in blocks of 16, 32, and so on up to 65,536. With c_s the number of times that symbol s
came in the blocks before, and K symbols, w_s = 2·c_s + 1 (A. Krichevsky, V. Trofimov, 1981) and

    f_s = 1 + ⌊w_s·(2^24 − K)/Σw⌋        what is missing from 2^24 goes to the largest f, the first of several

**Decoder.** Interval [l, l + R) of 64-bit numbers, l = 0, R = 2^64 − 1; p = the first two words. For each symbol:

    t = ⌊R/2^24⌋        s: F_s ≤ ⌊(p − l)/t⌋ < F_s + f_s, F_s = f_0 + … + f_{s−1}        l += t·F_s        R = t·f_s
    if R < 2^32: l, R and p are shifted up by one word, and the next word is added to p

modulo 2^64. Beyond the last word, which is not 0, words are 0. An encoder that ends at [l, l + R) adds the one word
⌊(l + 2^32 − 1)/2^32⌋, carry included, and then takes zeros off the end; a decoder refuses words that it has not read
after the last symbol, and p − l ≥ 2^33 − 1.

Layout: `varint` number of words, then the words as little-endian uint32.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from protocol.codec.range_queue import PRECISION, Decoder, Encoder, Int64, UInt32, fastest_decoder, fastest_encoder
from protocol.codec.varint import read_varint, varint
from protocol.errors import Malformed
from protocol.precision import UInt8
from protocol.reader import Reader

_FIRST: Final = 1 << 4
_LARGEST: Final = 1 << 16


class RangeCoder:
    """A fraction of a bit a symbol where symbols are predictable."""

    def __init__(
        self, encoder: Callable[[], Encoder] = fastest_encoder, decoder: Callable[[UInt32], Decoder] = fastest_decoder
    ) -> None:
        self._encoder, self._decoder = encoder, decoder

    def encode(self, codes_N: UInt8, symbols: int) -> bytes:
        """Block by block, each with what the blocks before it taught."""
        queue, model = self._encoder(), _Model(symbols)
        for part in _blocks(codes_N.size):
            queue.put(codes_N[part], model.frequencies())
            model.learn(codes_N[part])
        words = queue.words()
        return varint(words.size) + words.astype("<u4").tobytes()

    def decode(self, reader: Reader, count: int, symbols: int) -> UInt8:
        """Codes uint8[count]."""
        number = read_varint(reader, count + 2, "words of a range coder")  # no symbol takes more than 24 bits
        words = np.frombuffer(reader.take(4 * number, "words of a range coder"), dtype="<u4").astype(np.uint32)
        if number and not words[-1]:
            raise Malformed("the last word of a range coder must not be zero")
        queue, model = self._decoder(words), _Model(symbols)
        codes_N = np.empty(count, dtype=np.uint8)
        for part in _blocks(count):
            codes_N[part] = queue.get(part.stop - part.start, model.frequencies())
            model.learn(codes_N[part])
        if not queue.is_exhausted():
            raise Malformed(f"{number} words of a range coder: {count} symbols need fewer")
        return codes_N


class _Model:
    """How often each symbol came so far."""

    def __init__(self, symbols: int) -> None:
        self._counts_S = np.zeros(symbols, dtype=np.int64)

    def learn(self, codes_N: UInt8) -> None:
        self._counts_S += np.bincount(codes_N, minlength=self._counts_S.size)

    def frequencies(self) -> Int64:
        """int64[S], at least 1 each, 2^24 together."""
        weights_S = 2 * self._counts_S + 1
        room = (1 << PRECISION) - weights_S.size
        frequencies_S = 1 + weights_S * room // weights_S.sum()
        frequencies_S[frequencies_S.argmax()] += (1 << PRECISION) - frequencies_S.sum()
        return frequencies_S


def _blocks(count: int) -> Iterator[slice]:
    start, size = 0, _FIRST
    while start < count:
        yield slice(start, min(start + size, count))
        start, size = start + size, min(2 * size, _LARGEST)
