"""Values in 16 bits: half floats that share one exponent.

Deltas of side tensors may be tiny and variances large, and half floats reach only from 6·10⁻⁸ to 65504. One shared
power of two brings the largest magnitude just below 2^15, so that every tensor gets the format's 11 significant bits
for its large values.

Layout: int8 exponent e, then N little-endian float16 h. Value = h · 2^e.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.codec.coded import Dense
from protocol.errors import Malformed, Refusal
from protocol.precision import Float32, Int8
from protocol.reader import Reader, finite

Float16 = npt.NDArray[np.float16]
Sizes = npt.NDArray[np.int64]

_TOP: Final = 15
_LOWEST: Final = -120
_HIGHEST: Final = 113
"""Exponents for which h·2^e neither loses a half's bits to float32's subnormals nor overflows float32."""
_BLOCK: Final = 1 << 14


class Half:
    """float16 with a shared exponent: 2·N + 1 bytes."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002 (deterministic)
        """Round to nearest half after scaling."""
        exponent = exponents_of(np.maximum(values_N.max(), -values_N.min()))
        halves_N = np.empty(values_N.size, dtype="<f2")
        for part in _parts(values_N.size):
            halves_N[part] = to_halves(values_N[part], exponent)
        return b"".join([exponent.tobytes(), halves_N.data.cast("B")])

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """float32[count]."""
        what = f"{count} half floats"
        exponent = np.frombuffer(reader.take(1, what), dtype=np.int8)
        halves_N = np.frombuffer(reader.take(2 * count, what), dtype="<f2")
        values_N = np.empty(count, dtype=np.float32)
        for part in _parts(count):
            values_N[part] = from_halves(halves_N[part], exponent, what)
        return Dense(values_N)


def exponents_of(peaks_S: Float32) -> Int8:
    """The exponent under which a largest magnitude is just below 2^15."""
    _, tops_S = np.frexp(peaks_S)
    return np.clip(tops_S - _TOP, _LOWEST, _HIGHEST).astype(np.int8)


def to_halves(values_N: Float32, exponents_N: Int8) -> Float16:
    """Values as multiples of 2^e, rounded to nearest half."""
    return (values_N * np.exp2(-exponents_N.astype(np.float32))).astype("<f2")


def from_halves(halves_N: Float16, exponents_S: Int8, what: str, sizes_S: Sizes | None = None) -> Float32:
    """The values that halves, named `what` in errors, stand for: all under one exponent, or `sizes_S` under each.

    Raises:
        Malformed: an exponent is out of range, or a value is not finite or overflows float32.
    """
    if exponents_S.min() < _LOWEST or exponents_S.max() > _HIGHEST:
        found = f"{exponents_S.min()} to {exponents_S.max()}"
        raise Malformed(f"{what}: exponent {found}, expected {_LOWEST} to {_HIGHEST}")
    values_N, powers_S = halves_N.astype(np.float32), np.exp2(exponents_S.astype(np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        values_N *= powers_S if sizes_S is None else np.repeat(powers_S, sizes_S)  # exact: powers of two
    if not np.isfinite(values_N).all():
        finite(halves_N, what)
        raise Malformed(f"{what}: a value overflows float32", Refusal.NOT_FINITE)
    return values_N


def _parts(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]
