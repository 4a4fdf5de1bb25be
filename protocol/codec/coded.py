"""One tensor as it lies in a payload, checked but not yet spread out: what a merge can add up without its values.

`Dense` is any tensor with its values; `Signs` and `RotatedSigns` are one bit a value, still packed.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Protocol

import numpy as np

from protocol.codec.bitpack import choose
from protocol.codec.rotation import blocks, signs, unrotated
from protocol.precision import Float32, UInt8

_ONES = np.array([-1, 1], dtype=np.float32)


class Coded(Protocol):
    """A tensor of N finite values."""

    def values(self) -> Float32:
        """float32[N]."""
        ...

    def norm(self) -> float:
        """Euclidean norm of the values, or a little more."""
        ...


@dataclass(frozen=True, slots=True)
class Dense:
    """float32[N] as they are."""

    values_N: Float32

    def values(self) -> Float32:
        """float32[N]."""
        return self.values_N

    def norm(self) -> float:
        """Euclidean norm."""
        return float(np.linalg.norm(self.values_N.astype(np.float64)))


@dataclass(frozen=True, slots=True)
class Signs:
    """N times plus or minus a scale: `packed` has a bit a value, 1 for plus."""

    scale: np.float32
    packed: UInt8
    count: int

    def values(self) -> Float32:
        """float32[N]."""
        return choose(self.packed, self.count, _ONES * self.scale)

    def norm(self) -> float:
        """Euclidean norm."""
        return float(self.scale) * sqrt(self.count)


@dataclass(frozen=True, slots=True)
class RotatedSigns:
    """N values whose rotation (`rotation`) is plus or minus a scale for each block; a bit for each padded value."""

    scales_B: Float32
    packed: UInt8
    count: int
    seed: int

    def values(self) -> Float32:
        """float32[N]."""
        values = np.empty(8 * self.packed.size, dtype=np.float32)
        block = 0
        for part, size in blocks(self.count):
            packed = self.packed[part.start // 8 : part.stop // 8]
            y_BD = choose(packed, 8 * packed.size, _ONES).reshape(-1, size)
            y_BD *= self.scales_B[block : block + len(y_BD), None]
            values[part] = unrotated(y_BD, signs(self.seed, part).reshape(-1, size)).reshape(-1)
            block += len(y_BD)
        return values[: self.count]

    def norm(self) -> float:
        """Euclidean norm with what is padded, since rotations keep it."""
        sizes_B = np.concatenate([np.full((part.stop - part.start) // size, size) for part, size in blocks(self.count)])
        return float(np.sqrt((np.square(self.scales_B, dtype=np.float64) * sizes_B).sum()))
