"""Σ weight·rint(x·2^F) of values at full precision over any number of updates: int64[N], and nothing else."""

from typing import Final

import numpy as np

from aggregator.merge.fixed_point import Int64
from aggregator.merge.kernel import Kernel
from protocol.codec.coded import Coded, Raw
from protocol.codec.together import Ranged
from protocol.precision import UInt8

FLOATS: Final = 2
"""Updates that wait for each other: they halve the passes over the sums, but may be as large as the model."""


class TensorSum:
    """The sum of one tensor, or of several small ones together.

    Attributes:
        count: its values.
        bound: what no partial sum's magnitude exceeds; kept by the caller.
    """

    def __init__(self, count: int, kernel: Kernel) -> None:
        self.count = count
        self.bound = 0
        self._kernel = kernel
        self._sum_N: Int64 = np.zeros(count, dtype=np.int64)
        self._waiting: list[tuple[int, UInt8]] = []

    def add(self, values: Coded, weight: int) -> None:
        """An update's tensor, or all of its small ones."""
        if isinstance(values, Ranged):
            self._kernel.add_codes(self._sum_N, values.codes_N, values.low_S, values.step_S, values.sizes_S, weight)
            return
        if isinstance(values, Raw):
            packed = values.packed
        else:
            packed = np.ascontiguousarray(values.values(), dtype="<f4").view(np.uint8)
        self._waiting.append((weight, packed))
        if len(self._waiting) == FLOATS:
            self._flush()

    def merge(self, other: "TensorSum") -> None:
        """All of another sum of the same tensor."""
        own, others = self.settled(), other.settled()
        own += others
        self.bound += other.bound

    def settled(self) -> Int64:
        """The sum of everything, int64[N]."""
        if self._waiting:
            self._flush()
        return self._sum_N

    def _flush(self) -> None:
        weights, vectors = zip(*self._waiting, strict=True)
        self._kernel.add_floats(self._sum_N, vectors, np.array(weights, dtype=np.int64))
        self._waiting = []
