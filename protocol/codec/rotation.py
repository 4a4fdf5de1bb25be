"""Randomized Hadamard rotation in blocks: afterwards every block's values look normal, whatever they were before.

    y = H·D·x/√d        D a diagonal of random signs, H the Hadamard matrix of size d (H_2d = [[H, H], [H, −H]])

N. Ailon, B. Chazelle, "The Fast Johnson–Lindenstrauss Transform", SIAM J. Comput. 2009; for updates: A. T. Suresh et
al., "Distributed Mean Estimation with Limited Communication", ICML 2017, arXiv 1611.00429. H·H = d, so the way back
is x = D·H·y/√d.

**Blocks.** As many of 4096 values as fit; what is left, in blocks whose sizes are the powers of two of its binary form,
largest first, down to 64; the last one is filled up with zeros. A whole tensor in one block would be padded to up to
twice its size; this way it is 63 values at most.

**Signs.** Bit i of a stream, lowest bit first, of 64-bit words; word j is `mixed(seed + (j + 1)·0x9E3779B97F4A7C15)`,
the generator SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014). 1 stands for −1. Every value of the padded
tensor has its bit.
"""

from collections.abc import Iterator
from functools import cache
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from protocol.codec.bitpack import choose
from protocol.precision import Float32

Floats = TypeVar("Floats", Float32, npt.NDArray[np.float64])
UInt64 = npt.NDArray[np.uint64]

BLOCK: Final = 1 << 12
SMALLEST: Final = 1 << 6
_AT_ONCE: Final = 16
"""Blocks in one go: 256 kB, so that a block is still in the cache when its second pass comes."""
_SIGNS: Final = np.array([1, -1], dtype=np.float32)
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)


def padded_size(count: int) -> int:
    """Values of all blocks of a tensor of `count`."""
    return count + -count % SMALLEST


def blocks(count: int) -> Iterator[tuple[slice, int]]:
    """Runs of blocks of one size, as a slice of the padded tensor and that size; runs of full blocks are short."""
    start, end = 0, padded_size(count)
    while end - start >= BLOCK:
        number = min(_AT_ONCE, (end - start) // BLOCK)
        yield slice(start, start + number * BLOCK), BLOCK
        start += number * BLOCK
    size = BLOCK
    while start < end:
        size //= 2
        if end - start >= size:
            yield slice(start, start + size), size
            start += size


def mixed(words: UInt64) -> UInt64:
    """SplitMix64's finalizer."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def stream(seed: int, start: int, stop: int) -> UInt64:
    """Words `start` to `stop` of a seed's stream."""
    return mixed(np.uint64(seed) + np.arange(start + 1, stop + 1, dtype=np.uint64) * _GAMMA)


def rotated(x_BD: Float32, signs_BD: Float32) -> Float32:
    """Every row there: y from x."""
    return _hadamard(x_BD * signs_BD)


def unrotated(y_BD: Floats, signs_BD: Float32) -> Floats:
    """Every row back: x from y."""
    return _hadamard(y_BD) * signs_BD


def signs(seed: int, part: slice) -> Float32:
    """±1 for a part of the padded tensor that begins and ends at a multiple of 64."""
    words = stream(seed, part.start // 64, part.stop // 64).astype("<u8", copy=False)
    return choose(words.view(np.uint8), 64 * words.size, _SIGNS)


def _hadamard(x_BD: Floats) -> Floats:
    """H/√d of every row, as two products with small matrices: H_ab is the Kronecker product of H_a and H_b."""
    count, size = x_BD.shape
    left = 1 << (size.bit_length() - 1) // 2
    right = size // left
    x_BLR = (x_BD.reshape(count * left, right) @ matrix(right)).reshape(count, left, right)
    return np.matmul(matrix(left), x_BLR).reshape(count, size)


@cache
def matrix(size: int) -> Float32:
    """H/√size, for a power of two."""
    h = np.ones((1, 1), dtype=np.float32)
    while len(h) < size:
        h = np.block([[h, h], [h, -h]])
    h *= np.float32(size) ** np.float32(-0.5)
    h.setflags(write=False)
    return h
