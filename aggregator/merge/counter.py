"""How many of a round's bit vectors have a one at each place, without unpacking a single one.

The counts are bit-sliced: plane l has bit l of the counts of all places, so that memory grows with the logarithm of
their number alone, and a group of vectors is added to 64 places with a few operations on words (`kernel.Kernel.count`).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from aggregator.merge.fixed_point import MAX_UPDATES
from aggregator.merge.kernel import Kernel
from protocol.precision import UInt8

_LEAST: Final = 4
"""Planes that the kernel has in registers; with fewer it would go byte by byte."""


class Counter:
    """Counts ones of vectors of so many bytes.

    Attributes:
        vectors: how many were added.
    """

    def __init__(self, size: int, kernel: Kernel) -> None:
        self.vectors = 0
        self._kernel = kernel
        self._planes_LM = np.zeros((MAX_UPDATES.bit_length(), size), dtype=np.uint8)

    def add(self, packed: Sequence[UInt8]) -> None:
        """At most `GROUP` more vectors, uint8[size] each."""
        self.vectors += len(packed)
        levels = max(self.vectors.bit_length(), _LEAST)
        if levels > len(self._planes_LM):
            more_LM = np.zeros((levels - len(self._planes_LM), self._planes_LM.shape[1]), dtype=np.uint8)
            self._planes_LM = np.concatenate([self._planes_LM, more_LM])
        self._kernel.count(self._planes_LM[:levels], levels, packed)

    def planes(self) -> UInt8:
        """uint8[L, size], L the bits of the number of vectors: bit l of every place's count, lowest place first."""
        return self._planes_LM[: self.vectors.bit_length()]
