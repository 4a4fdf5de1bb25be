"""Every update of a round on disk, decoded once, to be read again in slices: a few values of all devices at a time.

What is 32 bits a value there would be 9 GB for 200 updates of a full ResNet18, so weights of one bit stay as they are;
a slice is spread out when it is read. The file has no name: a process that is killed, or a disk that is full, leaves
nothing behind.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from protocol.codec.bitpack import choose
from protocol.codec.coded import Coded, Raw, Signs
from protocol.precision import Float32, UInt8

SLICE_BYTES: Final = 1 << 23
"""Of float32, all devices together; a rule needs a few times as much at once."""
_ONES: Final = np.array([-1, 1], dtype=np.float32)

Column = tuple[str, str]
"""What lies together in every update that has it, by kind and name: a weight tensor, or a profile's side tensors."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an update's column lies; with a scale it is one bit a value, else float32."""

    start: int
    scale: float | None


class Spool:
    """Columns of a round's updates, which are numbered from 0; closed, it is gone.

    Args:
        folder: on a disk with room for all of it.

    Raises:
        OSError: the disk is full or failing.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `__exit__`)
        self._end = 0
        self._places: dict[Column, dict[int, _Place]] = {}
        self._sizes: dict[Column, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def size_bytes(self) -> int:
        """On disk so far."""
        return self._end

    def add(self, column: Column, update: int, size: int, values: Coded) -> None:
        """Keep a column of one update, of as many values as every other update's."""
        self._sizes[column] = size
        scale, packed = None, np.zeros(0, dtype=np.uint8)
        match values:
            case Signs():
                scale, packed = values.scale, values.packed
            case Raw():
                packed = values.packed
            case _:
                packed = np.ascontiguousarray(values.values(), dtype="<f4").view(np.uint8)
        self._places.setdefault(column, {})[update] = _Place(self._end, scale)
        self._end += self._file.write(packed.data)

    def columns(self, kind: str) -> list[str]:
        """The names of the columns of a kind, in the order in which they came."""
        return [name for found, name in self._places if found == kind]

    def updates(self, column: Column) -> list[int]:
        """Which updates have a column, in rising order."""
        return sorted(self._places.get(column, {}))

    def slices(self, column: Column) -> Iterator[tuple[slice, Float32]]:
        """All values of a column, slice by slice: which they are, and float32[K, B] of the K updates that have it."""
        self._file.flush()
        places = [self._places[column][update] for update in self.updates(column)]
        size = self._sizes[column]
        length = max(SLICE_BYTES // (4 * len(places)) // 8, 1) * 8  # bits begin at a byte
        for start in range(0, size, length):
            here = slice(start, min(start + length, size))
            values_KB = np.empty((len(places), here.stop - here.start), dtype=np.float32)
            for row_B, place in zip(values_KB, places, strict=True):
                self._read(row_B, place, start)
            yield here, values_KB

    def _read(self, row_B: Float32, place: _Place, start: int) -> None:
        if place.scale is None:
            self._fill(row_B.view(np.uint8), place.start + 4 * start)
            return
        packed = np.empty(-(-row_B.size // 8), dtype=np.uint8)
        self._fill(packed, place.start + start // 8)
        row_B[:] = choose(packed, row_B.size, _ONES * np.float32(place.scale))

    def _fill(self, buffer: UInt8, offset: int) -> None:
        done = os.preadv(self._file.fileno(), [buffer.data], offset)
        if done != buffer.size:
            raise OSError(f"spool of updates: {done} bytes at {offset}, expected {buffer.size}")
