"""The inner loops of the merge: a compiled module where it could be built, else numpy, to the same bits.

`_kernel.c` is `native`, `twin` the numpy version. Both add integers modulo 2⁶⁴ and doubles in one fixed order, so that
which of them ran cannot be told from a merged model. BITFLEET_KERNEL=plain or =native names one.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Final, Protocol

from aggregator.merge import twin
from aggregator.merge.fixed_point import Float64, Int64
from protocol.precision import Float32, UInt8

GROUP: Final = 16
"""Vectors that are added up in one call. More would save little, and each is kept until there are so many."""


class Kernel(Protocol):
    """At most `GROUP` vectors at a time; arguments are contiguous, and the first one is changed."""

    def add_floats(self, sum_N: Int64, vectors: Sequence[UInt8], weights_K: Int64, /) -> None:
        """Add weight·rint(x·2³²) of each vector of float32[N], given as bytes that may lie anywhere.

        Raises:
            ValueError: a value is not finite or does not fit 64 bits; the sum is worth nothing then.
        """
        ...

    def add_codes(
        self, sum_N: Int64, codes_N: UInt8, low_S: Float64, step_S: Float64, sizes_S: Int64, weight: int, /
    ) -> None:
        """Add weight·rint(x·2³²), x = float32(code·step + low), of S tensors of so many values each.

        Raises:
            ValueError: a value is not finite or does not fit 64 bits, or sizes do not add up; nothing was added.
        """
        ...

    def add_moments(self, sum_C: Int64, squares_C: Int64, mean_C: Float32, variance_C: Float32, weight: int, /) -> None:
        """Add weight·μ and weight·(σ² + μ²) in units of 2⁻²⁰, both rounded and μ first.

        The square is of the rounded mean: then what one device sent comes back as its own variance.

        Raises:
            ValueError: a value is not finite or does not fit 64 bits; nothing was added.
        """
        ...

    def add_signs(
        self, sum_N: Int64, vectors: Sequence[UInt8], coefficients_BK: Int64, offsets_B: Int64, sizes_B: Int64, /
    ) -> None:
        """Add Σ_k ±c_bk to every value of block b, plus where vector k has a one, and an offset.

        Args:
            sum_N: what is added to.
            vectors: bits of N values each, lowest bit first.
            coefficients_BK: int64, one for each block and vector.
            offsets_B: what else the values of a block get.
            sizes_B: values of each block, multiples of 8 up to the last; they add up to N.
        """
        ...

    def count(self, planes_LM: UInt8, levels: int, vectors: Sequence[UInt8], /) -> None:
        """Add bits to the numbers of which plane l has bit l, place by place; what L bits do not hold is lost."""
        ...

    def unrotate(self, values: Float64, size: int, signs: UInt8, factor: float, /) -> None:
        """Replace each row x of `size` values by ±factor·H·x, minus where `signs` has a one (`rotation`)."""
        ...

    def look_up(self, moved_N: Float32, base_N: Float32, vectors: Sequence[UInt8], table_256: Float64, /) -> None:
        """Set moved = base + table[i], bit k of i being what the k-th of at most eight vectors has at that place."""
        ...

    def move(self, moved_N: Float32, base_N: Float32, total_N: Float64, divisor: float, /) -> None:
        """Set moved = base + total / divisor."""
        ...


@cache
def available() -> dict[str, Kernel]:
    """The kernels there are, the fastest first."""
    try:
        from aggregator.merge import _kernel  # noqa: PLC0415 (not built everywhere)
    except ImportError:
        return {"plain": twin}
    return {"native": _kernel, "plain": twin}


@cache
def chosen() -> str:
    """The name of the kernel that this process uses.

    Raises:
        KeyError: BITFLEET_KERNEL names one that there is not.
    """
    name = os.environ.get("BITFLEET_KERNEL") or next(iter(available()))
    if name not in available():
        raise KeyError(f"BITFLEET_KERNEL={name}: expected one of {', '.join(available())}")
    return name
