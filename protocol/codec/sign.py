"""One bit a value: its sign, with the mean magnitude as the common scale.

J. Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", ICML 2018, arXiv 1802.04434; the
scaled sign is a contraction, ‖v − C(v)‖² ≤ (1 − ‖v‖₁²/(N‖v‖₂²))·‖v‖², so with error feedback it converges
(S. P. Karimireddy et al., "Error Feedback Fixes SignSGD", ICML 2019, arXiv 1901.09847).

Layout: float32 scale ≥ 0, then ⌈N/8⌉ bytes, bit 1 for v ≥ 0 (`bitpack`, one bit). Value = ±scale.
"""

import numpy as np

from protocol.codec.bitpack import pack, unpack
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader


class Sign:
    """One bit a value plus four bytes for the scale."""

    def encode(self, values_N: Float32, rng: np.random.Generator) -> bytes:  # noqa: ARG002 (deterministic)
        """Scale = mean|v|."""
        scale = np.abs(values_N).mean(dtype=np.float64)
        return np.array(scale, dtype="<f4").tobytes() + pack((values_N >= 0).view(np.uint8), 1)

    def decode(self, reader: Reader, count: int) -> Float32:
        """±scale as float32[count]."""
        scale = reader.floats(1, "sign scale")[0]
        if scale < 0:
            raise Malformed(f"sign scale {scale}: expected zero or more")
        positive_N = unpack(reader, count, 1)
        return np.where(positive_N, scale, -scale).astype(np.float32)
