"""The kernel in numpy: what runs where nothing could be compiled, and what says which bits are right (`kernel.Kernel`).

Each device has a coefficient of its own, so that ones cannot just be counted; but eight bits have only 256 sums, and
looking one up costs as much as one device's addition would (V. Arlazarov et al., "On economical construction of the
transitive closure of a directed graph", 1970). Where they can be counted, bits are added up carry-save: a full adder
makes of three vectors of one weight one of that and one of the next, five operations on a word for 64 places (H. S.
Warren, "Hacker's Delight", 2nd ed. 2012, section 5-1, after R. Harley and D. Seal).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from aggregator.merge.fixed_point import BLOCK, DELTA_BITS, MOMENT_BITS, Float64, Int64, scaled
from protocol.codec.bitpack import choose
from protocol.precision import Float32, UInt8

TABLE: Final = 8
"""Vectors that share a table."""
_FLIPS: Final = np.array([1, -1], dtype=np.float32)


def add_floats(sum_N: Int64, vectors: Sequence[UInt8], weights_K: Int64, /) -> None:
    """`kernel.Kernel.add_floats`."""
    for vector, weight in zip(vectors, weights_K, strict=True):
        values_N = vector.view("<f4")
        for start in range(0, sum_N.size, BLOCK):
            part = slice(start, start + BLOCK)
            whole_B = scaled(values_N[part].astype(np.float32), DELTA_BITS)
            if not (np.abs(whole_B) < 2.0**63).all():
                raise ValueError("a value does not fit 64 bits")
            sum_N[part] += whole_B.astype(np.int64) * weight


def add_codes(sum_N: Int64, codes_N: UInt8, low_S: Float64, step_S: Float64, sizes_S: Int64, weight: int, /) -> None:
    """`kernel.Kernel.add_codes`."""
    fit = low_S.size == step_S.size == sizes_S.size and codes_N.size == sum_N.size == sizes_S.sum()
    if not fit or (sizes_S < 0).any():
        raise ValueError("expected a code for every sum, and sizes that add up")
    values_N = (codes_N * np.repeat(step_S, sizes_S) + np.repeat(low_S, sizes_S)).astype(np.float32)
    whole_N = scaled(values_N, DELTA_BITS)
    if not (np.abs(whole_N) < 2.0**63).all():
        raise ValueError("a value does not fit 64 bits")
    sum_N += whole_N.astype(np.int64) * weight


def add_moments(sum_C: Int64, squares_C: Int64, mean_C: Float32, variance_C: Float32, weight: int, /) -> None:
    """`kernel.Kernel.add_moments`."""
    whole_C = scaled(mean_C, MOMENT_BITS)
    square_C = scaled(variance_C + np.square(whole_C * 2.0**-MOMENT_BITS), MOMENT_BITS)
    if not (np.maximum(np.abs(whole_C), np.abs(square_C)) < 2.0**63).all():
        raise ValueError("a value does not fit 64 bits")
    sum_C += whole_C.astype(np.int64) * weight
    squares_C += square_C.astype(np.int64) * weight


def add_signs(
    sum_N: Int64, vectors: Sequence[UInt8], coefficients_BK: Int64, offsets_B: Int64, sizes_B: Int64, /
) -> None:
    """`kernel.Kernel.add_signs`."""
    ends_B = np.cumsum(sizes_B)
    for first in range(0, len(vectors), TABLE):
        some = vectors[first : first + TABLE]
        sums_BT = sums_of(coefficients_BK[:, first : first + TABLE])
        if not first:
            sums_BT += offsets_B[:, None]
        for start in range(0, sum_N.size, BLOCK):
            part_P = sum_N[start : start + BLOCK]
            index_P = indices([vector[start // 8 : (start + BLOCK) // 8] for vector in some])[: part_P.size]
            block, at = int(np.searchsorted(ends_B, start, side="right")), 0
            while at < part_P.size:
                end = min(int(ends_B[block]) - start, part_P.size)
                part_P[at:end] += sums_BT[block].take(index_P[at:end])
                block, at = block + 1, end


def count(planes_LM: UInt8, levels: int, vectors: Sequence[UInt8], /) -> None:
    """`kernel.Kernel.count`."""
    for start in range(0, planes_LM.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        carries = [vector[part] for vector in vectors]
        for plane_B in planes_LM[:levels, part]:
            carries = _counted(plane_B, carries)


def _counted(plane_B: UInt8, ones: Sequence[UInt8]) -> list[UInt8]:
    """Add bits of a plane's weight to it, and return those of the next one's."""
    carries = []
    for first in range(0, len(ones), 2):
        some = ones[first : first + 2]
        other_B = plane_B ^ some[0]
        carry_B = plane_B & some[0]
        if len(some) == 2:
            carry_B |= other_B & some[1]
            other_B ^= some[1]
        plane_B[:] = other_B
        carries.append(carry_B)
    return carries


def unrotate(values: Float64, size: int, signs: UInt8, factor: float, /) -> None:
    """`kernel.Kernel.unrotate`."""
    x_DR = values.reshape(-1, size).T.copy()  # rows side by side, so that short strides are long runs too
    stride = 1
    while stride < size:
        pairs_P2X = x_DR.reshape(-1, 2, stride * x_DR.shape[1])
        first_PX, second_PX = pairs_P2X[:, 0], pairs_P2X[:, 1]
        difference_PX = first_PX - second_PX
        first_PX += second_PX
        second_PX[:] = difference_PX
        stride *= 2
    np.multiply(x_DR.T, factor, out=values.reshape(-1, size))
    values *= choose(signs, values.size, _FLIPS)


def look_up(moved_N: Float32, base_N: Float32, vectors: Sequence[UInt8], table_256: Float64, /) -> None:
    """`kernel.Kernel.look_up`."""
    for start in range(0, moved_N.size, BLOCK):
        part = slice(start, start + BLOCK)
        index_P = indices([vector[start // 8 : (start + BLOCK) // 8] for vector in vectors])
        moved_N[part] = base_N[part] + table_256.take(index_P[: moved_N[part].size])


def move(moved_N: Float32, base_N: Float32, total_N: Float64, divisor: float, /) -> None:
    """`kernel.Kernel.move`."""
    moved_N[:] = base_N + total_N / divisor


def sums_of(coefficients_BK: Int64) -> Int64:
    """int64[B, 2^K]: Σ_k ±c_bk, plus where bit k of the index is set."""
    sums_BT = np.zeros((len(coefficients_BK), 1), dtype=np.int64)
    for coefficient_B in coefficients_BK.T:
        sums_BT = np.concatenate([sums_BT - coefficient_B[:, None], sums_BT + coefficient_B[:, None]], axis=1)
    return sums_BT


def indices(vectors: Sequence[UInt8]) -> UInt8:
    """uint8[8·M]: bit k is what the k-th of at most eight vectors of M bytes has at that place, lowest bit first.

    Blocks of 8×8 bits are transposed inside 64-bit words (H. S. Warren, "Hacker's Delight", section 7-3).
    """
    rows_MK = np.zeros((vectors[0].size, TABLE), dtype=np.uint8)
    for k, vector in enumerate(vectors):
        rows_MK[:, k] = vector
    words_M = rows_MK.view("<u8")[:, 0]
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swapped_M = (words_M ^ (words_M >> np.uint64(shift))) & np.uint64(mask)
        words_M ^= swapped_M
        swapped_M <<= np.uint64(shift)
        words_M ^= swapped_M
    return rows_MK.reshape(-1)
