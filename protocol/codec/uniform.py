"""Uniform quantization over a tensor's range, stochastic, or to the nearest level inside an error-feedback loop.

D. Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017,
arXiv 1610.02132; over [min, max] as in A. Reisizadeh et al., "FedPAQ", AISTATS 2020, arXiv 1909.13014.

With R = max − min and step s = R/(2^b − 1), code = ⌊(v − min)/s + u⌋, u ~ U[0, 1): unbiased, the error of one value
is below s and its variance at most s²/4. With feedback it need not be unbiased, and u = ½ halves the mean
square error, from s²/6 to s²/12 where values spread evenly.

Layout: float32 min, float32 max, then the codes as the coder lays them out, by default `bitpack`.
"""

from typing import Final

import numpy as np

from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack
from protocol.codec.coded import Dense
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader

_BLOCK: Final = 1 << 14
_NARROW: Final = 1e-30
"""Below, codes per unit do not fit float32."""


class Uniform:
    """b bits a value, 1 to 8, plus eight bytes for the range."""

    def __init__(self, bits: int, coder: Coder | None = None, *, nearest: bool = False) -> None:
        self._top = (1 << bits) - 1
        self._nearest = nearest
        self._coder = coder or Bitpack()

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002
        """Round with `rng`, which draws u in steps of 2⁻¹⁶, or to nearest."""
        low, high = values_N.min(), values_N.max()
        span = float(high) - float(low)
        wide_N = values_N if span > _NARROW else values_N.astype(np.float64)
        codes_N = np.empty(values_N.size, dtype=np.uint8)
        for start in range(0, values_N.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            position_B = (wide_N[part] - low) * (self._top / span if span else 0.0)
            position_B += np.float32(0.5) if self._nearest else drawn(rng, position_B.size)
            codes_N[part] = np.minimum(position_B.astype(np.int16), self._top)  # a sum may be rounded up
        head = np.array([low, high], dtype="<f4").tobytes()
        return head + self._coder.encode(codes_N, self._top + 1)

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """The values min + code·s as float32[count]."""
        low, high = (float(bound) for bound in reader.floats(2, "uniform range"))
        if low > high:
            raise Malformed(f"uniform range: minimum {low} is above maximum {high}")
        codes_N = self._coder.decode(reader, count, self._top + 1)
        return Dense((low + np.arange(self._top + 1) * ((high - low) / self._top)).astype(np.float32)[codes_N])


def drawn(rng: np.random.Generator, count: int) -> Float32:
    """Uniform on [0, 1) in steps of 2⁻¹⁶, float32[count]: four of a draw, which is what takes the time."""
    words = np.asarray(rng.bit_generator.random_raw(-(-count // 4)), dtype="<u8")
    return np.multiply(words.view(np.uint16)[:count], np.float32(2**-16), dtype=np.float32)
