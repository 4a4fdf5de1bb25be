"""Uniform quantization with a given step: the bits follow from how far the values reach, not the step from the bits.

L. Qu, S. Song, C.-Y. Tsui, "FedDQ: Communication-Efficient Federated Learning with Descending Quantization", arXiv
2110.02291, fixes a resolution Δ and takes ⌈log₂(range/Δ)⌉ bits; the rounding is QSGD's (D. Alistarh et al., NeurIPS
2017, arXiv 1610.02132). A mean square error costs least where it is the same everywhere, so one Δ serves all rounds
and tensors: what has become small is sent in few bits, and in none where all of a tensor rounds to one level.

    k = ⌊v/Δ + u⌋, u ~ U[0, 1)      kΔ: unbiased, |error| < Δ, variance f(1 − f)·Δ² ≤ Δ²/4 with f = v/Δ − ⌊v/Δ⌋
    with feedback, u = ½            |error| ≤ Δ/2, mean square Δ²/12 where values spread evenly

Behind an entropy coder, normal values of deviation σ ≫ Δ take log₂(σ/Δ) + ½·log₂(2πe) bits, the last term 2.05.

Where levels would not lie within ±2²⁴, or more than 256 of them were needed, the step is doubled until they do: codes
have at most 8 bits, and whole numbers up to 2²⁴ are float32, so that one multiplication gives a value to its last bit.

Layout: float32 step > 0, int32 low, uint8 top, all little-endian; unless top is 0, the codes, each from 0 to top, as
the coder lays them out, by default `bitpack`. Value = (low + code)·step; where top is 0, every code is.
"""

import struct
from math import ceil, floor
from typing import Final

import numpy as np

from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack
from protocol.codec.coded import Dense
from protocol.codec.uniform import drawn
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader, finite

FARTHEST: Final = 1 << 24
"""Magnitude of a level; above it, not every whole number is a float32."""
_MOST: Final = 255
"""Steps between the lowest and the highest level, so that a code is a byte."""
_FINEST: Final = 2.0**-149
"""The smallest float32 above 0, from which doubling leads to a step that fits."""
_BLOCK: Final = 1 << 14


class Step:
    """As many bits a value as its tensor reaches far, 0 to 8, plus nine bytes."""

    def __init__(self, step: float, coder: Coder | None = None, *, nearest: bool = False) -> None:
        """step: Δ, of which a tensor takes the float32, or that times a power of two."""
        self._step = max(float(np.float32(step)), _FINEST)
        self._coder = coder or Bitpack()
        self._nearest = nearest

    def with_step(self, step: float) -> "Step":
        """The same with a step that was announced."""
        return Step(step, self._coder, nearest=self._nearest)

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002
        """Round with `rng`, which draws u in steps of 2⁻¹⁶, or to nearest."""
        step, first = _fitting(self._step, float(values_N.min()), float(values_N.max()))
        codes_N = np.empty(values_N.size, dtype=np.uint8)
        for start in range(0, values_N.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            position_B = np.multiply(values_N[part], 1 / step, dtype=np.float64)
            position_B -= first
            position_B += 0.5 if self._nearest else drawn(rng, position_B.size)
            codes_N[part] = position_B  # none is below 0, so cutting off is rounding down
        lowest = codes_N.min()
        codes_N -= lowest
        top = int(codes_N.max())
        head = struct.pack("<fiB", step, first + int(lowest), top)
        return head + self._coder.encode(codes_N, top + 1) if top else head

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """The values (low + code)·step as float32[count]."""
        step = reader.float("step")
        if step <= 0:
            raise Malformed(f"step {step}: expected above 0")
        low, top = struct.unpack("<iB", reader.take(5, "levels of a step"))
        if low < -FARTHEST or low + top > FARTHEST:
            raise Malformed(f"levels from {low} to {low + top}: expected within ±{FARTHEST}")
        with np.errstate(over="ignore"):
            ends_2 = np.array([low, low + top], dtype=np.float32) * np.float32(step)
        finite(ends_2, f"levels from {low} to {low + top} of step {step:g}")
        if not top:
            return Dense(np.full(count, ends_2[0]))
        values_N = self._coder.decode(reader, count, top + 1).astype(np.float32)
        values_N += np.float32(low)
        values_N *= np.float32(step)
        return Dense(values_N)


def _fitting(step: float, low: float, high: float) -> tuple[float, int]:
    """The step, doubled until levels between two values fit, and the first level at or below the lower one."""
    while True:
        first, last = floor(low * (1 / step)), ceil(high * (1 / step))
        if first >= -FARTHEST and last <= FARTHEST and last - first <= _MOST:
            return step, first
        step *= 2
