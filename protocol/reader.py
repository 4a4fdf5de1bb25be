"""A cursor over received bytes that refuses before it allocates."""

import struct
from math import isfinite
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from protocol.errors import Incomplete, Malformed, Refusal
from protocol.precision import Float32

Floats = TypeVar("Floats", bound=npt.NDArray[np.floating[Any]])


class Reader:
    """Takes pieces of known size from the front of a buffer; nothing is copied.

    Raises:
        Incomplete: fewer bytes are left than asked for.
        Malformed: a value that must be finite is not, or bytes are left over at `finish`.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._rest = memoryview(data)

    def take(self, count: int, what: str) -> memoryview:
        """The next `count` bytes, named `what` in errors."""
        if count > len(self._rest):
            raise Incomplete(f"{what}: {count} bytes expected, {len(self._rest)} left")
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece

    def peek(self, count: int) -> memoryview | None:
        """The next `count` bytes, which stay where they are; None if there are fewer."""
        return self._rest[:count] if count <= len(self._rest) else None

    def byte(self, what: str) -> int:
        """The next byte as an unsigned integer."""
        return self.take(1, what)[0]

    def float(self, what: str) -> float:
        """The next little-endian float32 value, finite."""
        (value,) = struct.unpack("<f", self.take(4, what))
        if not isfinite(value):
            raise _not_finite(what)
        return value

    def floats(self, count: int, what: str) -> Float32:
        """The next `count` little-endian float32 values, all finite."""
        values_N = np.frombuffer(self.take(4 * count, what), dtype="<f4").astype(np.float32)
        return finite(values_N, what)

    def finish(self) -> None:
        """Check that every byte was used."""
        if len(self._rest):
            raise Malformed(f"{len(self._rest)} bytes left over after the last tensor")


def finite(values_N: Floats, what: str) -> Floats:
    """`values_N` itself, if no value is NaN or infinite."""
    if not np.isfinite(values_N).all():
        raise _not_finite(what)
    return values_N


def _not_finite(what: str) -> Malformed:
    return Malformed(f"{what}: every value must be finite", Refusal.NOT_FINITE)
