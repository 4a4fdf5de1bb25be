"""Side tensors (gains, offsets, moments, steps) in 16 bits a value: half floats that share one exponent.

Deltas of side tensors may be tiny and variances large, and half floats reach only from 6·10⁻⁸ to 65504. One shared
power of two brings the largest magnitude just below 2^15, so that every tensor gets the format's 11 significant bits
for its large values.

Layout: int8 exponent e, then N little-endian float16 h. Value = h · 2^e.
"""

from typing import Final

import numpy as np

from protocol.codec.coded import Dense
from protocol.errors import Malformed
from protocol.precision import Float32
from protocol.reader import Reader, finite

_TOP: Final = 15
_LOWEST, _HIGHEST = -120, 113
"""Exponents for which h·2^e neither loses a half's bits to float32's subnormals nor overflows float32."""
_TALLEST: Final = float(np.finfo(np.float32).max)
_BLOCK: Final = 1 << 14


class Half:
    """float16 with a shared exponent: 2·N + 1 bytes."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002 (deterministic)
        """Round to nearest half after scaling."""
        _, top = np.frexp(max(values_N.max(), -values_N.min()))
        exponent = int(np.clip(int(top) - _TOP, _LOWEST, _HIGHEST))
        halves_N = np.empty(values_N.size, dtype="<f2")
        for part in _parts(values_N.size):
            halves_N[part] = values_N[part] * np.float32(2.0**-exponent)
        return b"".join([np.int8(exponent).tobytes(), halves_N.data.cast("B")])

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """float32[count]."""
        what = f"{count} half floats"
        exponent = int.from_bytes(reader.take(1, what), signed=True)
        if not _LOWEST <= exponent <= _HIGHEST:
            raise Malformed(f"{what}: exponent {exponent}, expected {_LOWEST} to {_HIGHEST}")
        halves_N = np.frombuffer(reader.take(2 * count, what), dtype="<f2")
        values_N = np.empty(count, dtype=np.float32)
        for part in _parts(count):
            block = finite(halves_N[part].astype(np.float32), what)
            if float(np.abs(block).max()) * 2.0**exponent > _TALLEST:
                raise Malformed(f"{what}: a value overflows float32")
            np.multiply(block, np.float32(2.0**exponent), out=values_N[part])
        return Dense(values_N)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
