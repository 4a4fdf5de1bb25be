"""The sums of all weight tensors, which dominate a model: runs of one bit a value at once, other tensors one by one."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from aggregator.merge.fixed_point import DELTA_BITS, HEADROOM, Int64, MergeError, bound_of
from aggregator.merge.kernel import Kernel
from aggregator.merge.run_sum import RunSum
from aggregator.merge.tensor_sum import TensorSum
from protocol.architecture import Tensors, TensorSpec
from protocol.codec.payload import CodedPayload
from protocol.codec.rotation import blocks
from protocol.codec.run import SignRun
from protocol.precision import Float32

PLAIN: Final = -1
"""The place of a seed where there is no rotation."""


class WeightSums:
    """The sums of the weights of one architecture, `specs` in wire order.

    Attributes:
        bounds_S: what no partial sum's magnitude exceeds, by tensor.
        apart: sums of what was read one by one, by name.
        runs: sums of runs, by the seed of their rotation, or `PLAIN`.
    """

    def __init__(self, specs: Sequence[TensorSpec], kernel: Kernel, *, vote: bool) -> None:
        self._specs = tuple(specs)
        self._kernel, self._vote = kernel, vote
        self.bounds_S: Int64 = np.zeros(len(self._specs), dtype=np.int64)
        self.apart: dict[str, TensorSum] = {}
        self.runs: dict[int, RunSum] = {}

    def require_room(self, bounds_S: Int64) -> None:
        """Check that what reaches so far can still be added.

        Raises:
            MergeError: the sum of some tensor might not fit 64 bits.
        """
        over_S = bounds_S > HEADROOM - self.bounds_S
        if over_S.any():
            index = int(over_S.argmax())
            total = int(bounds_S[index]) + int(self.bounds_S[index])
            name = self._specs[index].name
            raise MergeError(f"tensor {name}: sums of up to {total} do not fit 64 bits, expected at most {HEADROOM}")

    def add(self, update: CodedPayload, samples: int, bounds_S: Int64) -> None:
        """An update's weights, for which there is room."""
        self.bounds_S += bounds_S
        if update.run is not None:
            self._run_sum(update.run, update.header.seed).add(update.run, samples)
        for spec in self._specs if update.run is None else ():
            self._sum_of(spec).add(update.apart[spec.name], samples)

    def merge(self, other: "WeightSums") -> None:
        """All of another, for which there is room."""
        self.bounds_S = self.bounds_S + other.bounds_S
        for spec in self._specs:
            if spec.name in other.apart:
                self._sum_of(spec).merge(other.apart[spec.name])
        for seed, run_sum in other.runs.items():
            self.runs.setdefault(seed, RunSum(run_sum.layout, self._kernel, vote=self._vote)).merge(run_sum)

    def moved(self, base: Tensors, samples: int) -> Tensors:
        """The base's weights plus the averages over so many samples.

        In a vote, plus the sign that more samples have, times the average of the scales, which is the bound over the
        samples; where it is a tie, the base's.
        """
        divisor = samples * 2.0**DELTA_BITS
        return {
            spec.name: self._moved(index, spec, base[spec.name].reshape(-1), divisor).reshape(spec.shape)
            for index, spec in enumerate(self._specs)
        }

    def _moved(self, index: int, spec: TensorSpec, base_N: Float32, divisor: float) -> Float32:
        moved_N = np.empty(spec.size, dtype=np.float32)
        whole, seeds = self.runs.get(PLAIN), sorted(self.runs.keys() - {PLAIN})
        if whole is not None and not seeds and not self.apart and not self._vote and whole.looks_up():
            whole.look_up(moved_N, base_N, index, divisor)
            return moved_N
        sum_N = self.apart[spec.name].settled() if spec.name in self.apart else None
        for part, size in blocks(spec.size):
            here = slice(part.start, min(part.stop, spec.size))
            total_P = np.zeros(here.stop - here.start, dtype=np.int64) if sum_N is None else sum_N[here]
            if whole is not None:
                part_P = whole.part(index, here)
                total_P = part_P if sum_N is None else total_P + part_P
            value_P = total_P.astype(np.float64)
            for seed in seeds:
                value_P += self.runs[seed].unrotated(index, part, size)[: value_P.size]
            if self._vote:
                value_P = np.sign(value_P) * float(self.bounds_S[index])
            self._kernel.move(moved_N[here], base_N[here], value_P, divisor)
        return moved_N

    def _sum_of(self, spec: TensorSpec) -> TensorSum:
        if spec.name not in self.apart:
            self.apart[spec.name] = TensorSum(spec.size, self._kernel)
        return self.apart[spec.name]

    def _run_sum(self, run: SignRun, seed: int) -> RunSum:
        key = seed if run.layout.rotated else PLAIN
        if key not in self.runs:
            self.runs[key] = RunSum(run.layout, self._kernel, vote=self._vote)
        return self.runs[key]


def bounds_of(update: CodedPayload, samples: int) -> Int64:
    """How far the sums of each weight can move, int64[S].

    Raises:
        MergeError: a weight does not fit 64 bits, or is not finite.
    """
    whole_S = np.rint(update.peaks_S() * 2.0**DELTA_BITS)
    fits_S = whole_S * samples < 2.0**63  # false beside NaN
    if not fits_S.all():
        index = int(fits_S.argmin())
        bound_of(update.header.layout.weights[index].name, float(whole_S[index]), samples)
    return whole_S.astype(np.int64) * samples
