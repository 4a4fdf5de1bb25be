"""Golomb–Rice codes of the gaps between the codes that are not zero; then these codes themselves, bit-packed.

S. W. Golomb, "Run-length encodings", IEEE Trans. Inf. Theory 1966; R. F. Rice, JPL 79-22, 1979. For codes that are
mostly zero: a gap g (the zeros before a code that is not) becomes ⌊g/2^r⌋ in unary and the lower r bits as they are.
Where each code is zero with probability 1 − p, independently, that costs within 4 % of the entropy of the positions.

Layout: `varint` n of the codes that are not zero; unless n = 0: byte r (0 to 31), `varint` u, u bytes with the unary
parts (⌊g/2^r⌋ ones and a zero each), ⌈n·r/8⌉ bytes with the lower parts as r planes of n bits, lowest first; and where
there are more than two symbols, n codes less one, as `bitpack` lays them out. Bits lie lowest first in their bytes;
those after the last are zero.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.codec.bitpack import Bitpack, pack, packed_bytes, read_packed
from protocol.codec.varint import read_varint, varint
from protocol.errors import Malformed
from protocol.precision import UInt8
from protocol.reader import Reader

Int64 = npt.NDArray[np.int64]

_MAX_SHIFT: Final = 31
_NONE: Final = np.zeros(0, dtype=np.int64)
_REST: Final = Bitpack()


class Golomb:
    """For sparse codes, zero being the common one."""

    def encode(self, codes_N: UInt8, symbols: int) -> bytes:
        """With the r that makes the positions shortest."""
        at_n = np.flatnonzero(codes_N)
        if not at_n.size:
            return varint(0)
        gaps_n = np.diff(at_n, prepend=-1) - 1
        shift = _best_shift(gaps_n)
        ends_n = np.cumsum((gaps_n >> shift) + 1) - 1
        unary = np.ones(int(ends_n[-1]) + 1, dtype=np.uint8)
        unary[ends_n] = 0
        unary_bytes = pack(unary, 1)
        lower_rn = (gaps_n >> np.arange(shift)[:, None] & 1).astype(np.uint8)
        rest = _REST.encode(codes_N[at_n] - 1, symbols - 1) if symbols > 2 else b""
        head = varint(at_n.size) + bytes([shift]) + varint(len(unary_bytes))
        return head + unary_bytes + pack(lower_rn.reshape(-1), 1) + rest

    def decode(self, reader: Reader, count: int, symbols: int) -> UInt8:
        """Codes uint8[count]."""
        at_n = _positions(reader, count)
        codes_N = np.zeros(count, dtype=np.uint8)
        codes_N[at_n] = _REST.decode(reader, at_n.size, symbols - 1) + 1 if symbols > 2 and at_n.size else 1
        return codes_N


def _positions(reader: Reader, count: int) -> Int64:
    number = read_varint(reader, count, "codes that are not zero")
    if not number:
        return _NONE
    shift = reader.byte("Rice parameter")
    if shift > _MAX_SHIFT:
        raise Malformed(f"Rice parameter {shift}: expected at most {_MAX_SHIFT}")
    unary_bytes = read_varint(reader, packed_bytes(2 * count, 1), "bytes of unary codes")
    gaps_n = _heads(np.frombuffer(reader.take(unary_bytes, "unary codes"), dtype=np.uint8), number)
    if int(gaps_n.max()) > count >> shift:
        raise Malformed(f"a gap of {int(gaps_n.max())}·2^{shift}: expected below {count}")
    gaps_n <<= shift
    lower = read_packed(reader, number * shift, 1)
    for plane in range(shift):
        gaps_n += np.left_shift(_plane(lower, plane, number), plane, dtype=np.int64)
    gaps_n += 1
    at_n = np.cumsum(gaps_n, out=gaps_n)
    at_n -= 1
    if int(at_n[-1]) >= count:
        raise Malformed(f"position {int(at_n[-1])}: expected below {count}")
    return at_n


def _heads(unary: UInt8, number: int) -> Int64:
    """The ones of each code; there may be as many zeros more as fill the last byte."""
    bits = np.unpackbits(unary, bitorder="little")
    zeros = bits.size - int(np.count_nonzero(bits))
    ends_n = np.flatnonzero(bits == 0)[:number] if number <= zeros < number + 8 else _NONE
    if not ends_n.size or int(ends_n[-1]) // 8 != unary.size - 1:
        raise Malformed(f"{unary.size} bytes of unary codes: expected {number} codes that end in the last of them")
    if int(unary[-1]) >> (int(ends_n[-1]) % 8):
        raise Malformed("bits after the last unary code must be zero")
    ends_n[1:] -= ends_n[:-1] + 1
    return ends_n


def _plane(bits: UInt8, plane: int, number: int) -> UInt8:
    """One bit of each gap; a plane may begin within a byte."""
    start = plane * number
    part = bits[start // 8 : -(-(start + number) // 8)]
    return np.unpackbits(part, bitorder="little")[start % 8 :][:number]


def _best_shift(gaps_n: Int64) -> int:
    """The r with the fewest bits, near log2 of the mean gap."""
    near = int(gaps_n.mean() + 1).bit_length() - 1
    candidates = range(max(0, near - 2), min(_MAX_SHIFT, near + 1) + 1)
    return min(candidates, key=lambda r: r * gaps_n.size + int((gaps_n >> r).sum()))
