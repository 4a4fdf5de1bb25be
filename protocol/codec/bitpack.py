"""Codes of 1 to 8 bits in dense bytes.

Layout: one little-endian bit stream. Code i occupies bits i·b to i·b + b − 1, lowest bit first, where bit j of the
stream is bit j mod 8 of byte ⌊j/8⌋. Three codes of 3 bits, A = a₂a₁a₀ and so on:

    byte 0: c₁ c₀ b₂ b₁ b₀ a₂ a₁ a₀      byte 1: 0 0 0 0 0 0 0 c₂

The stream has ⌈N·b/8⌉ bytes; the bits after the last code are zero.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import LocalProtocolError, Malformed
from protocol.precision import Float32, UInt8
from protocol.reader import Reader

_BYTES: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
"""The bits of every byte."""
_HALVES: Final = np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1).astype(np.uint8)
"""The lower and upper four bits of every byte."""
_BLOCK: Final = 1 << 16
"""Codes handled at once; eight codes pass through one uint64, so a block's workspace stays in the cache."""


class Bitpack:
    """The same number of bits for every code, as many as the largest needs."""

    def encode(self, codes_N: UInt8, symbols: int) -> bytes:
        """`pack`."""
        return pack(codes_N, bits_for(symbols))

    def decode(self, reader: Reader, count: int, symbols: int) -> UInt8:
        """`unpack`, and a check where there are fewer symbols than the bits can tell apart."""
        bits = bits_for(symbols)
        codes_N = unpack(reader, count, bits)
        if symbols < 1 << bits and count and int(codes_N.max()) >= symbols:
            raise Malformed(f"code {int(codes_N.max())}: expected below {symbols}")
        return codes_N


def bits_for(symbols: int) -> int:
    """Bits that tell `symbols` codes apart, at least one."""
    return max(1, (symbols - 1).bit_length())


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits occupy."""
    return -(-count * bits // 8)


def pack(codes_N: UInt8, bits: int) -> bytes:
    """Pack uint8[N] codes, each below 2^bits.

    Raises:
        LocalProtocolError: bits is not 1 to 8, or a code does not fit.
    """
    _check_bits(bits)
    if codes_N.size and int(codes_N.max()) >> bits:
        raise LocalProtocolError(f"code {int(codes_N.max())} does not fit {bits} bits")
    if bits == 8:
        return codes_N.tobytes()
    if bits == 1:
        return np.packbits(codes_N, bitorder="little").tobytes()
    if bits == 4:
        low_N, high_N = codes_N[::2], codes_N[1::2]
        data = low_N.copy()
        data[: high_N.size] |= high_N << 4
        return data.tobytes()
    blocks = (codes_N[start : start + _BLOCK] for start in range(0, codes_N.size, _BLOCK))
    return b"".join(_pack_block(block, bits) for block in blocks)


def _pack_block(codes_N: UInt8, bits: int) -> bytes:
    """Eight codes fill exactly `bits` bytes: shift them into one uint64 and keep its low bytes."""
    groups_G8 = np.zeros((-(-codes_N.size // 8), 8), dtype="<u8")
    groups_G8.reshape(-1)[: codes_N.size] = codes_N
    words_G = np.bitwise_or.reduce(groups_G8 << _shifts(bits), axis=1)
    return words_G.view(np.uint8).reshape(-1, 8)[:, :bits].tobytes()[: packed_bytes(codes_N.size, bits)]


def unpack(reader: Reader, count: int, bits: int) -> UInt8:
    """Unpack uint8[count] codes of `bits` bits.

    Raises:
        Incomplete: too few bytes.
        Malformed: a bit after the last code is set.
    """
    data = read_packed(reader, count, bits)
    if bits == 8:
        return data.copy()
    if bits == 1:
        return np.unpackbits(data, count=count, bitorder="little")
    if bits == 4:
        return np.take(_HALVES, data, axis=0).reshape(-1)[:count]
    step = _BLOCK * bits // 8
    codes_N = np.empty(count, dtype=np.uint8)
    for block, start in enumerate(range(0, data.size, step)):
        codes = _unpack_block(data[start : start + step], bits)
        room = codes_N[block * _BLOCK : (block + 1) * _BLOCK]
        room[:] = codes[: room.size]
    return codes_N


def read_packed(reader: Reader, count: int, bits: int) -> UInt8:
    """The bytes of uint8[count] codes of `bits` bits, still packed.

    Raises:
        Incomplete: too few bytes.
        Malformed: a bit after the last code is set.
    """
    _check_bits(bits)
    data = np.frombuffer(reader.take(packed_bytes(count, bits), f"{count} codes of {bits} bits"), dtype=np.uint8)
    unused = packed_bytes(count, bits) * 8 - count * bits
    if unused and int(data[-1]) >> (8 - unused):
        raise Malformed(f"the last {unused} bits after {count} codes of {bits} bits must be zero")
    return data


def choose(data: UInt8, count: int, values_2: Float32) -> Float32:
    """float32[count], the first value where the stream of single bits in `data` has 0, the second where it has 1."""
    return np.take(values_2[_BYTES], data, axis=0).reshape(-1)[:count]


def _unpack_block(data: UInt8, bits: int) -> UInt8:
    words_G8 = np.zeros((-(-data.size // bits), 8), dtype=np.uint8)
    padded = np.zeros(words_G8.shape[0] * bits, dtype=np.uint8)
    padded[: data.size] = data
    words_G8[:, :bits] = padded.reshape(-1, bits)
    codes_G8 = (words_G8.view("<u8") >> _shifts(bits)) & np.uint64((1 << bits) - 1)
    return codes_G8.astype(np.uint8).reshape(-1)


def _shifts(bits: int) -> npt.NDArray[np.uint64]:
    return np.arange(0, 8 * bits, bits, dtype=np.uint64)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise LocalProtocolError(f"bit-packing of {bits} bits: expected 1 to 8")
