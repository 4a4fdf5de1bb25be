"""Σ ±c over eight devices at once: the bits that eight devices have at one place are an index into 256 sums.

Each device has a coefficient of its own, so that ones cannot just be counted; but eight bits have only 256 sums, and
looking one up costs as much as one device's addition would (V. Arlazarov et al., "On economical construction of the
transitive closure of a directed graph", 1970).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from aggregator.merge.fixed_point import Int64
from protocol.precision import UInt8

GROUP: Final = 8


def sums_of(coefficients_KB: Int64) -> Int64:
    """int64[B, 2^K]: Σ_k ±c_kb, plus where bit k of the index is set."""
    sums_BT = np.zeros((coefficients_KB.shape[1], 1), dtype=np.int64)
    for coefficient_B in coefficients_KB:
        sums_BT = np.concatenate([sums_BT - coefficient_B[:, None], sums_BT + coefficient_B[:, None]], axis=1)
    return sums_BT


def indices(packed: Sequence[UInt8]) -> UInt8:
    """uint8[8·M]: bit k is what the k-th of at most eight vectors of M bytes has at that place, lowest bit first.

    Blocks of 8×8 bits are transposed inside 64-bit words (H. S. Warren, "Hacker's Delight", section 7-3).
    """
    rows_MK = np.zeros((packed[0].size, GROUP), dtype=np.uint8)
    for k, vector in enumerate(packed):
        rows_MK[:, k] = vector
    words_M = rows_MK.view("<u8")[:, 0]
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swapped_M = (words_M ^ (words_M >> np.uint64(shift))) & np.uint64(mask)
        words_M ^= swapped_M
        swapped_M <<= np.uint64(shift)
        words_M ^= swapped_M
    return rows_MK.reshape(-1)
