"""One tensor as it lies in a payload, checked but not yet spread out: what a merge can add up without its values.

`Dense` is any tensor with its values, `Raw` one whose values are its bytes; `Signs` and `RotatedSigns` are one bit a
value, still packed.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final, Protocol

import numpy as np

from protocol.codec.bitpack import choose
from protocol.codec.rotation import blocks, signs, unrotated
from protocol.precision import Float32, UInt8

_BLOCK: Final = 1 << 16
_ONES = np.array([-1, 1], dtype=np.float32)


class Coded(Protocol):
    """A tensor of N finite values."""

    def values(self) -> Float32:
        """float32[N]."""
        ...

    def norm(self) -> float:
        """Euclidean norm of the values, or a little more."""
        ...

    def peak(self) -> float:
        """The largest magnitude of the values, or of what they are when rotated."""
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

    def peak(self) -> float:
        """Largest magnitude; not a number if a value is none."""
        return float(np.maximum(self.values_N.max(), -self.values_N.min()))

    def part(self, tensors: slice, place: slice) -> "Dense":  # noqa: ARG002 (`together.Grouped`)
        """The values at that place."""
        return Dense(self.values_N[place])


@dataclass(frozen=True, slots=True)
class Raw:
    """Little-endian float32[N] as their bytes, uint8[4·N], which may lie anywhere."""

    packed: UInt8
    largest: float

    def values(self) -> Float32:
        """float32[N]."""
        return self.packed.view("<f4").astype(np.float32)

    def norm(self) -> float:
        """Euclidean norm."""
        values_N = self.packed.view("<f4")
        blocks_ = (values_N[start : start + _BLOCK] for start in range(0, values_N.size, _BLOCK))
        return sqrt(sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks_))

    def peak(self) -> float:
        """Largest magnitude."""
        return self.largest


def largest_of(packed: UInt8) -> float:
    """Largest magnitude of little-endian float32 values; infinite or not a number if a value is.

    Without their sign, floats are in the order of their bits, and whatever is not finite is above all that is.
    """
    most = np.uint32(0)
    for start in range(0, packed.size, 4 * _BLOCK):
        bits_B = packed[start : start + 4 * _BLOCK].copy().view("<u4")
        bits_B &= np.uint32(0x7FFFFFFF)
        most = np.maximum(most, bits_B.max())
    return float(most.view(np.float32))


@dataclass(frozen=True, slots=True)
class Signs:
    """N times plus or minus a scale: `packed` has a bit a value, 1 for plus."""

    scale: float
    packed: UInt8
    count: int

    def values(self) -> Float32:
        """float32[N]."""
        return choose(self.packed, self.count, _ONES * np.float32(self.scale))

    def norm(self) -> float:
        """Euclidean norm."""
        return self.scale * sqrt(self.count)

    def peak(self) -> float:
        """The scale."""
        return self.scale


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

    def peak(self) -> float:
        """The largest scale."""
        return float(self.scales_B.max())
