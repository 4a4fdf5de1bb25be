"""Values as integers: every value becomes rint(x·2^F) once, on arrival, and from then on there are only additions."""

from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.precision import Float32

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

DELTA_BITS: Final = 32
"""Fraction bits of deltas: errors below 2⁻³³ a value, room for Σ n·|Δ| < 2³¹."""
MOMENT_BITS: Final = 20
"""Fraction bits of moments: finer than the 11 significant bits they travel with, room for Σ n·(σ² + μ²) < 2⁴³."""
HEADROOM: Final = (1 << 63) - 1
MAX_UPDATES: Final = 1024
"""Updates in one round. Each is admitted only if this many like it fit, so that no accepted one is ever in the way;
larger fleets merge in leaves."""
BLOCK: Final = 1 << 14
"""Values at once: a handful of 64-bit buffers of this size stay in the cache."""


class MergeError(Exception):
    """Updates that cannot be added up; nothing was added."""


def scaled(values_X: Float32 | Float64, bits: int) -> Float64:
    """rint(x·2^bits), as float64 that are whole."""
    return np.rint(values_X * np.float64(2.0**bits))


def whole(value: float) -> float:
    """What `scaled` makes of one delta."""
    return float(np.rint(value * 2.0**DELTA_BITS))


def bound_of(name: str, peak: float, weight: int) -> int:
    """The magnitude that a whole number of at most `peak`, times `weight`, can reach, in Python's unbounded integers.

    Raises:
        MergeError: it does not fit 64 bits, or is not finite.
    """
    if not peak * weight < 2.0**63:
        raise MergeError(f"tensor {name}: {peak:g} fixed-point units × {weight} does not fit 64 bits")
    return int(peak) * weight
