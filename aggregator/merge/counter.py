"""How many of a round's bit vectors have a one at each place, without unpacking a single one.

Bit-sliced counters, added up carry-save: level i holds up to two vectors whose bits count 2^i each; when a third comes,
a full adder makes one of the same level and one carry of the next. A vector costs one adder on average, five operations
on a word for 64 places, and memory grows with the logarithm of their number alone (H. S. Warren, "Hacker's Delight",
2nd ed. 2012, section 5-1, after R. Harley and D. Seal).
"""

import numpy as np
import numpy.typing as npt

from protocol.precision import UInt8


class Counter:
    """Counts ones of vectors of so many bytes."""

    def __init__(self, size: int) -> None:
        self.vectors = 0
        self._size = size
        self._levels: list[list[UInt8]] = [[]]
        self._spare: list[UInt8] = []

    def add(self, packed: UInt8) -> None:
        """One more vector, uint8[size]."""
        self.vectors += 1
        carry, level = packed, 0
        while len(self._levels[level]) == 2:
            one, other = self._levels[level]
            total, next_carry = self._buffer(), self._buffer()
            np.bitwise_xor(one, other, out=total)
            np.bitwise_and(total, carry, out=next_carry)
            np.bitwise_xor(total, carry, out=total)
            both = self._buffer()
            np.bitwise_and(one, other, out=both)
            np.bitwise_or(next_carry, both, out=next_carry)
            self._spare += [both, *(vector for vector in (one, other, carry) if vector.base is None)]
            self._levels[level] = [total]
            carry, level = next_carry, level + 1
            if level == len(self._levels):
                self._levels.append([])
        self._levels[level].append(carry)

    def ones(self, part: slice) -> npt.NDArray[np.uint32]:
        """Number of ones at the places of a part of the bytes, lowest bit first, uint32[8·bytes]."""
        counts = np.zeros(8 * (part.stop - part.start), dtype=np.uint32)
        for level, vectors in enumerate(self._levels):
            for vector in vectors:
                counts += np.unpackbits(vector[part], bitorder="little") * np.uint32(1 << level)
        return counts

    def _buffer(self) -> UInt8:
        return self._spare.pop() if self._spare else np.empty(self._size, dtype=np.uint8)
