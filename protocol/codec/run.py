"""All weights of one bit a value at once: they lie one after the other, each as its scales and then its bits.

A round's payloads differ in nothing but these bytes. Where the scales are follows from the table, so that a hundred
thousand bytes or ten million are checked in the same handful of operations. What is not as it should be is left to the
codec of one tensor, which says what is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from protocol.codec.coded import Coded, RotatedSigns, Signs
from protocol.codec.rotation import blocks
from protocol.precision import Float32, UInt8
from protocol.reader import Reader

Places = npt.NDArray[np.int64]

SCALE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """Where one tensor lies: its values, its bits among the run's bytes, and its scales among the run's scales."""

    count: int
    bits: slice
    scales: slice
    seed: int


@dataclass(frozen=True, slots=True)
class RunLayout:
    """How tensors of one bit a value lie in a payload.

    Attributes:
        pieces: each of them.
        size: bytes of the run.
        rotated: whether a tensor has a scale for each block of its rotation; else it has one.
        gain: what scales are multiplied by.
        largest: scale that may be sent.
        scale_bytes_B4: places of the bytes of every scale.
        sizes_P: bits of what follows one another in the run, scales among them as if they were bits.
        scaled_P: which of those belong to the scales, in their order.
        first_S: the first scale of every tensor.
        last_U: places of bytes whose upper bits are unused, which `unused_U` has set.
    """

    pieces: tuple[Piece, ...]
    size: int
    rotated: bool
    gain: np.float32
    largest: float
    scale_bytes_B4: Places
    sizes_P: Places
    scaled_P: Places
    first_S: Places
    last_U: Places
    unused_U: UInt8

    @classmethod
    def of(cls, counts: Sequence[int], seeds: Sequence[int], *, rotated: bool, gain: float, largest: float) -> Self:
        """The layout of tensors with so many values."""
        pieces: list[Piece] = []
        scale_at: list[int] = []
        sizes: list[int] = []
        scaled: list[int] = []
        at = 0
        for count, seed in zip(counts, seeds, strict=True):
            block_sizes = _block_sizes(count) if rotated else [count + -count % 8]
            head, first = SCALE_BYTES * len(block_sizes), len(scale_at)
            scale_at += range(at, at + head, SCALE_BYTES)
            sizes.append(8 * head)
            scaled += range(len(sizes), len(sizes) + len(block_sizes))
            sizes += block_sizes
            bits = slice(at + head, at + head + sum(block_sizes) // 8)
            pieces.append(Piece(count, bits, slice(first, len(scale_at)), seed))
            at = bits.stop
        odd = [] if rotated else [piece for piece in pieces if piece.count % 8]
        return cls(
            pieces=tuple(pieces),
            size=at,
            rotated=rotated,
            gain=np.float32(gain),
            largest=largest,
            scale_bytes_B4=np.array(scale_at, dtype=np.int64)[:, None] + np.arange(SCALE_BYTES),
            sizes_P=np.array(sizes, dtype=np.int64),
            scaled_P=np.array(scaled, dtype=np.int64),
            first_S=np.array([piece.scales.start for piece in pieces], dtype=np.int64),
            last_U=np.array([piece.bits.stop - 1 for piece in odd], dtype=np.int64),
            unused_U=np.array([0xFF << piece.count % 8 & 0xFF for piece in odd], dtype=np.uint8),
        )

    def read(self, reader: Reader) -> "SignRun | None":
        """The run, or None where one of its tensors would be refused; the reader then stands where it stood."""
        data = reader.peek(self.size)
        if data is None:
            return None
        packed = np.frombuffer(data, dtype=np.uint8)
        scales_B = packed[self.scale_bytes_B4].view("<f4")[:, 0]
        if not (scales_B.min() >= 0 and scales_B.max() <= self.largest):  # neither holds beside NaN
            return None
        if self.last_U.size and (packed[self.last_U] & self.unused_U).any():
            return None
        reader.take(self.size, "weights")
        return SignRun(self, packed, scales_B * self.gain)


@dataclass(frozen=True, slots=True)
class SignRun:
    """A run that was read: its bytes, and float32 scales of all its blocks."""

    layout: RunLayout
    packed: UInt8
    scales_B: Float32

    def parts(self) -> list[Coded]:
        """Tensor by tensor."""
        return [self._part(piece) for piece in self.layout.pieces]

    def peaks(self) -> Float32:
        """The largest scale of every tensor, float32[S]."""
        return np.maximum.reduceat(self.scales_B, self.layout.first_S)

    def _part(self, piece: Piece) -> Coded:
        scales_B, packed = self.scales_B[piece.scales], self.packed[piece.bits]
        if self.layout.rotated:
            return RotatedSigns(scales_B, packed, piece.count, piece.seed)
        return Signs(float(scales_B[0]), packed, piece.count)


def _block_sizes(count: int) -> list[int]:
    return [size for part, size in blocks(count) for _ in range(part.start, part.stop, size)]
