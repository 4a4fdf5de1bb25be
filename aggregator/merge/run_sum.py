"""Σ ±c_b over runs of one bit a value (`protocol.codec.run`), c_b the coefficient of a tensor or of one of its blocks.

    all of a group have one step and number of samples      their ones are counted (`counter`)
    others                                                  through tables of what eight bits can add up to
    rotated                                                 likewise, where they are rotated: one seed, one way back

A group is `GROUP` runs, or what is left at the end. Scales lie among the bits; they are summed too, with the
coefficient 0, so that a run is one vector.
"""

from typing import Final

import numpy as np

from aggregator.merge.counter import Counter
from aggregator.merge.fixed_point import DELTA_BITS, Float64, Int64, scaled
from aggregator.merge.kernel import GROUP, Kernel
from protocol.codec.rotation import stream
from protocol.codec.run import Piece, RunLayout, SignRun
from protocol.precision import Float32, UInt8

_COUNTERS: Final = 2
"""Different scales and samples that are counted; further ones go through tables, which need no memory of their own."""
_PLANES: Final = 8
"""Counts of so many bits are an index into one table."""


class RunSum:
    """The sum of runs that lie alike and, if rotated, were rotated with one seed; in a vote, of signs alone."""

    def __init__(self, layout: RunLayout, kernel: Kernel, *, vote: bool) -> None:
        self.layout = layout
        self._kernel, self._vote = kernel, vote
        self._sum: Int64 | None = None
        self._counters: dict[bytes, Counter] = {}
        self._waiting: list[tuple[Int64, UInt8]] = []

    def add(self, run: SignRun, samples: int) -> None:
        """One update's."""
        coefficients_P = np.zeros(self.layout.sizes_P.size, dtype=np.int64)
        scales_B = np.ones_like(run.scales_B) if self._vote else scaled(run.scales_B, DELTA_BITS)
        coefficients_P[self.layout.scaled_P] = scales_B.astype(np.int64) * samples
        self._waiting.append((coefficients_P, run.packed))
        if len(self._waiting) == GROUP:
            self._flush()

    def merge(self, other: "RunSum") -> None:
        """All of another."""
        own, others = self.settled(), other.settled()
        own += others

    def settled(self) -> Int64:
        """The sum of everything, one for each bit of the run."""
        self._flush()
        sum_ = self._dense()
        for coefficients, counter in self._counters.items():
            self._add_counts(sum_, slice(0, self.layout.size), np.frombuffer(coefficients, np.int64), counter)
        self._counters = {}
        return sum_

    def part(self, index: int, here: slice) -> Int64:
        """The sums of some of a tensor's values, from a multiple of 8 on, where they are not rotated."""
        self._flush()
        piece = self.layout.pieces[index]
        at = 8 * piece.bits.start
        if self._sum is not None:
            sum_P = self._sum[at + here.start : at + here.stop]
        else:
            sum_P = np.zeros(here.stop - here.start, dtype=np.int64)
        packed = slice((at + here.start) // 8, -(-(at + here.stop) // 8))
        if self._counters and self._sum is not None:
            sum_P = sum_P.copy()
        for coefficients, counter in self._counters.items():
            self._add_counts(sum_P, packed, self._coefficient(coefficients, piece), counter)
        return sum_P

    def unrotated(self, index: int, part: slice, size: int) -> Float64:
        """The way back of one of the parts that `rotation.blocks` cuts a tensor in."""
        self._flush()
        piece, sum_ = self.layout.pieces[index], self._dense()
        at = 8 * piece.bits.start
        values = sum_[at + part.start : at + part.stop].astype(np.float64)
        signs = stream(piece.seed, part.start // 64, part.stop // 64).astype("<u8", copy=False).view(np.uint8)
        self._kernel.unrotate(values, size, signs, size**-0.5)
        return values

    def looks_up(self) -> bool:
        """Whether everything was counted by one counter of few bits."""
        self._flush()
        counters = list(self._counters.values())
        return self._sum is None and len(counters) == 1 and len(counters[0].planes()) <= _PLANES

    def look_up(self, moved_N: Float32, base_N: Float32, index: int, divisor: float) -> None:
        """Set a tensor to base + sum/divisor where `looks_up`: there are no more different sums than counts."""
        ((coefficients, counter),) = self._counters.items()
        piece, planes_LM = self.layout.pieces[index], counter.planes()
        counts_256 = np.minimum(np.arange(256), counter.vectors)
        sums_256 = (2 * counts_256 - counter.vectors) * self._coefficient(coefficients, piece)
        vectors = [plane_M[piece.bits] for plane_M in planes_LM]
        self._kernel.look_up(moved_N, base_N, vectors, sums_256.astype(np.float64) / divisor)

    def _coefficient(self, coefficients: bytes, piece: Piece) -> Int64:
        """The one of a tensor that has one, int64[1]."""
        return np.frombuffer(coefficients, np.int64)[self.layout.scaled_P[piece.scales]]

    def _counter(self, coefficients_KP: Int64) -> Counter | None:
        """The one for a group of runs, if there is one for it."""
        if self.layout.rotated or (coefficients_KP != coefficients_KP[0]).any():
            return None
        coefficients = coefficients_KP[0].tobytes()
        counter = self._counters.get(coefficients)
        if counter is None and len(self._counters) < _COUNTERS:
            counter = self._counters[coefficients] = Counter(self.layout.size, self._kernel)
        return counter

    def _add_counts(self, total: Int64, packed: slice, coefficients_P: Int64, counter: Counter) -> None:
        """Add c·(2·ones − vectors): planes are vectors too, of coefficients c·2^l, but for an offset."""
        planes_LM = counter.planes()
        offsets_P = coefficients_P * ((1 << len(planes_LM)) - 1 - counter.vectors)
        coefficients_PL = coefficients_P[:, None] << np.arange(len(planes_LM))
        sizes_P = self.layout.sizes_P if coefficients_P.size > 1 else np.array([total.size], dtype=np.int64)
        self._kernel.add_signs(total, [plane_M[packed] for plane_M in planes_LM], coefficients_PL, offsets_P, sizes_P)

    def _flush(self) -> None:
        """Add what waits to the sum."""
        if not self._waiting:
            return
        vectors, sizes_P = [packed for _, packed in self._waiting], self.layout.sizes_P
        coefficients_KP = np.stack([coefficients_P for coefficients_P, _ in self._waiting])
        counter = self._counter(coefficients_KP)
        if counter is not None:
            counter.add(vectors)
        else:
            coefficients_PK = np.ascontiguousarray(coefficients_KP.T)
            self._kernel.add_signs(self._dense(), vectors, coefficients_PK, np.zeros_like(sizes_P), sizes_P)
        self._waiting = []

    def _dense(self) -> Int64:
        if self._sum is None:
            self._sum = np.zeros(8 * self.layout.size, dtype=np.int64)
        return self._sum
