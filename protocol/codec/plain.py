"""Values as they are: little-endian float32, the anchor every other codec is compared with."""

import numpy as np

from protocol.codec.coded import Raw, largest_of
from protocol.errors import Malformed, Refusal
from protocol.precision import Float32
from protocol.reader import Reader


class Plain:
    """float32, four bytes a value."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> memoryview:  # noqa: ARG002 (deterministic)
        """The values' own bytes, not copied where they lie as they must."""
        return np.ascontiguousarray(values_N, dtype="<f4").data.cast("B")

    def read(self, reader: Reader, count: int, seed: int) -> Raw:  # noqa: ARG002
        """float32[count]."""
        packed = np.frombuffer(reader.take(4 * count, f"{count} float32 values"), dtype=np.uint8)
        largest = largest_of(packed)
        if not largest < np.inf:
            raise Malformed(f"{count} float32 values: every value must be finite", Refusal.NOT_FINITE)
        return Raw(packed, largest)
