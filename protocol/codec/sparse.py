"""Only the largest values; the rest is zero.

    top-k       k = ⌈p·N⌉ values of the largest magnitude, the first of equal ones (Y. Lin et al., "Deep Gradient
                Compression", ICLR 2018, arXiv 1712.01887; DGC's momentum correction is `feedback`'s)
    STC         the same, each ± the mean magnitude of those kept (F. Sattler et al., "Robust and Communication-
                Efficient Federated Learning from Non-IID Data", IEEE TNNLS 2020, arXiv 1903.02891): `sign` inside

Layout: codes of N bits, 1 where a value is kept (`golomb`, or another coder), then the kept values, in order, as the
inner codec lays them out; nothing more where none is kept.
"""

from math import ceil

import numpy as np

from protocol.codec.base import Coder, TensorCodec
from protocol.codec.coded import Dense
from protocol.codec.golomb import Golomb
from protocol.precision import Float32, UInt8
from protocol.reader import Reader


class Sparse:
    """A share p of the values, each tensor by itself."""

    def __init__(self, share: float, inner: TensorCodec, coder: Coder | None = None) -> None:
        self._share, self._inner, self._coder = share, inner, coder or Golomb()

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:
        """Positions, then values; a zero is never kept."""
        kept_N = largest(values_N, self._share)
        positions = self._coder.encode(kept_N, 2)
        kept_K = values_N[kept_N.view(bool)]
        return positions + self._inner.encode(kept_K, rng, seed) if kept_K.size else positions

    def read(self, reader: Reader, count: int, seed: int) -> Dense:
        """float32[count], mostly zeros."""
        kept_N = self._coder.decode(reader, count, 2).view(bool)
        values_N = np.zeros(count, dtype=np.float32)
        number = int(kept_N.sum())
        if number:
            values_N[kept_N] = self._inner.read(reader, number, seed).values()
        return Dense(values_N)


def largest(values_N: Float32, share: float) -> UInt8:
    """1 for the ⌈share·N⌉ values of the largest magnitude, the first of equal ones, except zeros."""
    wanted = ceil(share * values_N.size)
    magnitude_N = np.abs(values_N)
    if wanted >= values_N.size:
        return (magnitude_N > 0).view(np.uint8)
    bound = np.partition(magnitude_N, -wanted)[-wanted]
    kept_N = (magnitude_N > bound).view(np.uint8)
    if bound:
        ties = np.flatnonzero(magnitude_N == bound)
        kept_N[ties[: wanted - int(kept_N.sum())]] = 1
    return kept_N
