"""Sums that moments of any number of devices are pooled from, exactly (`partial_sum`)."""

from typing import Final

import numpy as np

from aggregator.merge.fixed_point import MOMENT_BITS, Float64, Int64, bound_of
from aggregator.merge.kernel import Kernel
from protocol.precision import Float32

_ROUNDING: Final = 1.0
_SPARE: Final = 1 + 2.0**-10
"""What rounding means and squares adds at most, in units and as a share, and to spare."""


class MomentSum:
    """Σ n·μ and Σ n·(σ² + μ²) over the channels of one profile.

    Attributes:
        count: channels.
        means_C: int64[C], in units of 2⁻²⁰.
        squares_C: int64[C], likewise.
        bound: what no partial sum's magnitude exceeds; kept by the caller.
    """

    def __init__(self, count: int, kernel: Kernel) -> None:
        self.count = count
        self.bound = 0
        self._kernel = kernel
        self.means_C: Int64 = np.zeros(count, dtype=np.int64)
        self.squares_C: Int64 = np.zeros(count, dtype=np.int64)

    def add(self, mean_C: Float32, variance_C: Float32, pictures: int) -> None:
        """One device's moments over so many pictures."""
        self._kernel.add_moments(self.means_C, self.squares_C, mean_C, variance_C, pictures)

    def merge(self, other: "MomentSum") -> None:
        """All of another sum of the same channels."""
        self.means_C += other.means_C
        self.squares_C += other.squares_C
        self.bound += other.bound

    def pooled(self, pictures: int) -> tuple[Float64, Float64]:
        """Mean and variance over all pictures, float64[C] each."""
        unit = pictures * 2.0**MOMENT_BITS
        mean_C = self.means_C / unit
        return mean_C, np.maximum(self.squares_C / unit - mean_C**2, 0.0)


def moment_bound(mean_C: Float32, variance_C: Float32, pictures: int) -> int:
    """How far sums can move by these moments.

    Raises:
        MergeError: they do not fit 64 bits, or are not finite.
    """
    mean, variance = np.maximum(mean_C.max(), -mean_C.min()).astype(np.float64), np.float64(variance_C.max())
    reach = float(np.maximum(mean, mean * mean + variance))  # not a number if one of them is none
    return bound_of("moments", reach * 2.0**MOMENT_BITS * _SPARE + _ROUNDING, pictures)
