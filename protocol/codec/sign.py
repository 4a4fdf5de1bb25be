"""One bit a value: its sign, with the mean magnitude as the common scale.

J. Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", ICML 2018, arXiv 1802.04434; the
scaled sign is a contraction, ‖v − C(v)‖² ≤ (1 − ‖v‖₁²/(N‖v‖₂²))·‖v‖², so with error feedback it converges
(S. P. Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019, arXiv 1901.09847).

Layout: float32 scale ≥ 0, then ⌈N/8⌉ bytes, bit 1 for v ≥ 0 (`bitpack`, one bit). Value = ±scale.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from protocol.codec.bitpack import pack, read_packed
from protocol.codec.coded import Signs
from protocol.codec.run import RunLayout
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader

_TALLEST: Final = float(np.finfo(np.float32).max)
_BLOCK: Final = 1 << 14


class Sign:
    """One bit a value plus four bytes for the scale."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002 (deterministic)
        """Scale = mean|v|."""
        blocks = (values_N[start : start + _BLOCK] for start in range(0, values_N.size, _BLOCK))
        scale = sum(float(np.abs(block).sum(dtype=np.float64)) for block in blocks) / values_N.size
        return np.array(scale, dtype="<f4").tobytes() + pack((values_N >= 0).view(np.uint8), 1)

    def read(self, reader: Reader, count: int, seed: int) -> Signs:  # noqa: ARG002
        """±scale."""
        return read_signs(reader, count)

    def run(self, counts: Sequence[int], seeds: Sequence[int]) -> RunLayout:
        """A scale each."""
        return sign_run(counts, seeds)


def sign_run(counts: Sequence[int], seeds: Sequence[int]) -> RunLayout:
    """Tensors of which each has one scale, zero or more."""
    return RunLayout.of(counts, seeds, rotated=False, gain=1, largest=_TALLEST)


def read_signs(reader: Reader, count: int) -> Signs:
    """A scale, zero or more, and a bit a value."""
    scale = reader.float("scale")
    if scale < 0:
        raise Malformed(f"scale {scale}: expected zero or more")
    return Signs(scale, read_packed(reader, count, 1), count)
