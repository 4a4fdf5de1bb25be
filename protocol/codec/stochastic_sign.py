"""One bit a value, drawn so that sums stay whole: +s with probability (1 + v/s)/2, else −s.

R. Jin, Y. Huang, X. He, H. Dai, T. Wu, "Stochastic-Sign SGD for Federated Learning with Theoretical Guarantees",
arXiv 2002.10940. Where all devices take the step s that the aggregator announced, Σ v̂ = s·(2·(ones) − devices):
counting bits is all the merge has to do, and masks that cancel can hide single updates. Without bias where |v| ≤ s;
beyond, v is clipped. The variance of one value is s² − v².

Layout: float32 step s ≥ 0, then codes, 1 for +s (`bitpack`, one bit).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from protocol.codec.bitpack import pack
from protocol.codec.coded import Signs
from protocol.codec.run import RunLayout
from protocol.codec.sign import read_signs, sign_run
from protocol.codec.uniform import drawn
from protocol.precision import Float32
from protocol.reader import Reader

_BLOCK: Final = 1 << 14


class StochasticSign:
    """One bit a value plus four bytes for the step."""

    def __init__(self, step: float | None = None) -> None:
        """With the step that was announced; without one, each tensor's largest magnitude, so that none is clipped."""
        self._step = step

    def with_step(self, step: float) -> "StochasticSign":
        """With a step that was announced."""
        return StochasticSign(step)

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002
        """Draw each bit with `rng`."""
        step = np.float32(np.abs(values_N).max() if self._step is None else self._step)
        codes_N = np.empty(values_N.size, dtype=np.uint8)
        for start in range(0, values_N.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            threshold_B = drawn(rng, values_N[part].size)
            threshold_B *= 2 * step
            threshold_B -= step
            codes_N[part] = values_N[part] >= threshold_B
        return step.astype("<f4").tobytes() + pack(codes_N, 1)

    def read(self, reader: Reader, count: int, seed: int) -> Signs:  # noqa: ARG002
        """±s."""
        return read_signs(reader, count)

    def run(self, counts: Sequence[int], seeds: Sequence[int]) -> RunLayout:
        """A step each."""
        return sign_run(counts, seeds)
