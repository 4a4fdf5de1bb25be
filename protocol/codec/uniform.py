"""Stochastic uniform quantization over a tensor's range.

D. Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017,
arXiv 1610.02132; over [min, max] as in A. Reisizadeh et al., "FedPAQ", AISTATS 2020, arXiv 1909.13014.

With R = max − min and step s = R/(2^b − 1), code = ⌊(v − min)/s + u⌋, u ~ U[0, 1): unbiased, the error of one value
is below s and its variance at most s²/4.

Layout: float32 min, float32 max, then the codes as `bitpack` lays them out.
"""

import numpy as np

from protocol.codec.bitpack import pack, unpack
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader


class Uniform:
    """b bits a value, 1 to 8, plus eight bytes for the range."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._top = (1 << bits) - 1

    def encode(self, values_N: Float32, rng: np.random.Generator) -> bytes:
        """Round stochastically with `rng`."""
        low, high = values_N.min(), values_N.max()
        span = float(high) - float(low)
        position_N = (values_N - np.float64(low)) * (self._top / span if span else 0.0)
        codes_N = np.floor(position_N + rng.random(values_N.size)).clip(0, self._top)
        return np.array([low, high], dtype="<f4").tobytes() + pack(codes_N.astype(np.uint8), self.bits)

    def decode(self, reader: Reader, count: int) -> Float32:
        """The values min + code·s as float32[count]."""
        low, high = (float(bound) for bound in reader.floats(2, "uniform range"))
        if low > high:
            raise Malformed(f"uniform range: minimum {low} is above maximum {high}")
        codes_N = unpack(reader, count, self.bits)
        return (low + codes_N * ((high - low) / self._top)).astype(np.float32)
