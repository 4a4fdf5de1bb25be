"""Σ weight·rint(x·2^F) of one tensor over any number of updates, in memory that their number does not change.

    Dense            added to int64[N], block by block
    Signs            the same step and weight as others: their ones are counted (`counter`); else eight at a time
                     through a table of sums (`bit_table`)
    RotatedSigns     the same tables for each block, added up where they are rotated: one seed, one way back

Integers alone are added, so that any grouping in any order gives the same bits; rotations are undone at the very end.
"""

from typing import Final

import numpy as np

from aggregator.merge.bit_table import GROUP, indices, sums_of
from aggregator.merge.counter import Counter
from aggregator.merge.fixed_point import BLOCK, DELTA_BITS, Float64, Int64, scaled, whole
from protocol.codec.coded import Coded, RotatedSigns, Signs
from protocol.codec.rotation import blocks, padded_size, signs, unrotated
from protocol.precision import Float32, UInt8

_COUNTERS: Final = 2
"""Different coefficients that are counted; further ones go through tables, which need no memory of their own."""


class TensorSum:
    """The sum of one tensor.

    Attributes:
        count: its values.
        bound: what no partial sum's magnitude exceeds; kept by the caller.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.bound = 0
        self._sum_N: Int64 | None = None
        self._counters: dict[int, Counter] = {}
        self._waiting: list[tuple[int, UInt8]] = []
        self.rotated: dict[int, _RotatedSum] = {}

    def add(self, coded: Coded, weight: int) -> None:
        """An update's tensor."""
        match coded:
            case RotatedSigns(scales_B, packed, _, seed):
                rotated = self.rotated.setdefault(seed, _RotatedSum(self.count))
                rotated.add(scaled(scales_B, DELTA_BITS).astype(np.int64) * weight, packed)
            case Signs(scale, packed):
                self._add_signs(int(whole(float(scale))) * weight, packed)
            case _:
                values_N, sum_N = coded.values(), self._dense()
                for start in range(0, self.count, BLOCK):
                    part = slice(start, start + BLOCK)
                    sum_N[part] += scaled(values_N[part], DELTA_BITS).astype(np.int64) * weight

    def add_whole(self, values_N: Float64, weight: int) -> None:
        """Values that are whole numbers already."""
        self._dense()[:] += values_N.astype(np.int64) * weight

    def merge(self, other: "TensorSum") -> None:
        """All of another sum of the same tensor."""
        own, others = self.settled(), other.settled()
        own += others
        for seed, rotated in other.rotated.items():
            self.rotated.setdefault(seed, _RotatedSum(self.count)).merge(rotated)
        self.bound += other.bound

    def moved(self, base_N: Float32, divisor: float) -> Float32:
        """The base plus the sum, in units of 2^−F where values were scaled by 2^F, over `divisor`: float32[N]."""
        sum_N, moved_N = self.settled(), np.empty(self.count, dtype=np.float32)
        turned = [self.rotated[seed].unrotated(seed) for seed in sorted(self.rotated)]
        for start in range(0, self.count, BLOCK):
            part = slice(start, start + BLOCK)
            total_B = sum_N[part].astype(np.float64)
            for values_N in turned:
                total_B += values_N[part]
            moved_N[part] = base_N[part] + total_B / divisor
        return moved_N

    def _add_signs(self, coefficient: int, packed: UInt8) -> None:
        counter = self._counters.get(coefficient)
        if counter is None and len(self._counters) < _COUNTERS:
            counter = self._counters[coefficient] = Counter(packed.size)
        if counter is not None:
            counter.add(packed)
            return
        self._waiting.append((coefficient, packed))
        if len(self._waiting) == GROUP:
            self._look_up()

    def _look_up(self) -> None:
        """Add what waits to the dense sum."""
        if not self._waiting:
            return
        sum_N = self._dense()
        sums_T = sums_of(np.array([[coefficient] for coefficient, _ in self._waiting]))[0]
        for start in range(0, self.count, BLOCK):
            index_B = indices([packed[start // 8 : (start + BLOCK) // 8] for _, packed in self._waiting])
            part = sum_N[start : start + BLOCK]
            part += sums_T.take(index_B[: part.size])
        self._waiting = []

    def settled(self) -> Int64:
        """The sum of everything that is not rotated, int64[N]."""
        self._look_up()
        sum_N = self._dense()
        for coefficient, counter in self._counters.items():
            for start in range(0, self.count, BLOCK):
                part = sum_N[start : start + BLOCK]
                ones = counter.ones(slice(start // 8, start // 8 - (-part.size // 8)))[: part.size]
                part += (2 * ones.astype(np.int64) - counter.vectors) * coefficient
        self._counters = {}
        return sum_N

    def _dense(self) -> Int64:
        if self._sum_N is None:
            self._sum_N = np.zeros(self.count, dtype=np.int64)
        return self._sum_N


class _RotatedSum:
    """Σ ±c_b over updates of one rotation, c_b the coefficient of a block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sum = np.zeros(padded_size(count), dtype=np.int64)
        self._waiting: list[tuple[Int64, UInt8]] = []

    def add(self, coefficients_B: Int64, packed: UInt8) -> None:
        """One update."""
        self._waiting.append((coefficients_B, packed))
        if len(self._waiting) == GROUP:
            self._look_up()

    def merge(self, other: "_RotatedSum") -> None:
        """All of another."""
        self._sum += other.settled()

    def settled(self) -> Int64:
        """The sum of everything, int64[padded N]."""
        self._look_up()
        return self._sum

    def unrotated(self, seed: int) -> Float64:
        """float64[N]."""
        total = self.settled()
        values = np.empty(total.size, dtype=np.float64)
        for part, size in blocks(self._count):
            y_BD = total[part].astype(np.float64).reshape(-1, size)
            values[part] = unrotated(y_BD, signs(seed, part).reshape(-1, size)).reshape(-1)
        return values[: self._count]

    def _look_up(self) -> None:
        if not self._waiting:
            return
        sums_BT = sums_of(np.array([coefficients_B for coefficients_B, _ in self._waiting]))
        block = 0
        for part, size in blocks(self._count):
            index = indices([packed[part.start // 8 : part.stop // 8] for _, packed in self._waiting])
            sum_BD = self._sum[part].reshape(-1, size)
            for row, index_D in enumerate(index.reshape(-1, size)):
                sum_BD[row] += sums_BT[block + row].take(index_D)
            block += len(sum_BD)
        self._waiting = []
