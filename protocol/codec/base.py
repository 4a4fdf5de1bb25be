"""The contract that every tensor codec keeps; `tests/protocol/codec/contract.py` is its test class."""

from typing import Protocol

import numpy as np

from protocol.precision import Float32
from protocol.reader import Reader


class TensorCodec(Protocol):
    """Turns the values of one tensor into bytes and back, exactly as its docstring lays them out."""

    def encode(self, values_N: Float32, rng: np.random.Generator) -> bytes:
        """Encode finite float32[N]. `rng` feeds stochastic rounding; deterministic codecs leave it alone."""
        ...

    def decode(self, reader: Reader, count: int) -> Float32:
        """Decode float32[count].

        Raises:
            Incomplete: the bytes end too early; nothing of the tensor's size was allocated yet.
            Malformed: the bytes break the layout, or a value is not finite.
        """
        ...
