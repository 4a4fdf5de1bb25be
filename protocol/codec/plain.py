"""Values as they are: little-endian float32, the anchor every other codec is compared with."""

import numpy as np

from protocol.codec.coded import Dense
from protocol.precision import Float32
from protocol.reader import Reader


class Plain:
    """float32, four bytes a value."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> memoryview:  # noqa: ARG002 (deterministic)
        """The values' own bytes, not copied where they lie as they must."""
        return np.ascontiguousarray(values_N, dtype="<f4").data.cast("B")

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """float32[count]."""
        return Dense(reader.floats(count, f"{count} float32 values"))
