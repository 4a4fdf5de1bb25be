"""EDEN: rotate, then round to the levels that are best for normal values. DRIVE is the same at one bit.

S. Vargaftik, R. Ben Basat, A. Portnoy, G. Mendelson, Y. Ben-Itzhak, M. Mitzenmacher, "EDEN: Communication-Efficient and
Robust Distributed Mean Estimation for Federated Learning", ICML 2022, arXiv 2108.08842; "DRIVE", NeurIPS 2021,
arXiv 2105.08339. In each block of `rotation`, with y its rotated values and q the level nearest to y·√d/‖y‖, of those
that J. Max (IEEE Trans. Inf. Theory 1960) and S. P. Lloyd found for the standard normal distribution:

    without bias        ŷ = s·q        s = ‖y‖²/⟨q, y⟩        ‖x̂ − x‖²/‖x‖² = 0.571, 0.133, 0.036, 0.0096 at 1 to 4 bits
    in error feedback   s = ⟨q, y⟩/‖q‖²        0.363, 0.118, 0.035, 0.0095: the smallest residual, and it contracts

Below one bit, k = ⌈r·d⌉ values of every block are sent with one bit each, and the others are zero: those whose words in
the stream behind the signs' are smallest, the first of equal ones. Without bias, s is then d/k times as large.

Layout: float32 s from 0 to 10³⁴ for each block, then the codes of all blocks (`bitpack`, or another coder); code c
stands for the level c of `LEVELS`, in ascending order.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack, read_packed
from protocol.codec.coded import Coded, Dense, RotatedSigns
from protocol.codec.rotation import blocks, padded_size, rotated, signs, stream, unrotated
from protocol.codec.run import RunLayout
from protocol.errors import Malformed
from protocol.precision import Float32, UInt8
from protocol.reader import Reader

_POSITIVE: Final = {
    1: (0.7979,),
    2: (0.4528, 1.5104),
    3: (0.2451, 0.7560, 1.3439, 2.1520),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326),
}
_LARGEST_SCALE: Final = 1e34
"""Above what a block of the largest values that are ever sent can have; beyond, sums would overflow."""
LEVELS: Final = {
    bits: np.array([*(-level for level in reversed(half)), *half], dtype=np.float32) for bits, half in _POSITIVE.items()
}


class Eden:
    """1 to 4 bits a value, or fewer than one, and four bytes a block."""

    def __init__(self, rate: float, *, contractive: bool = False, coder: Coder | None = None) -> None:
        """rate: bits a value, 1, 2, 3, 4 or between 0 and 1. contractive: the scale for error feedback."""
        bits = max(1, int(rate))
        self._levels = LEVELS[bits]
        self._borders = (self._levels[1:] + self._levels[:-1]) / 2
        self._share = min(rate, 1.0)
        self._contractive = contractive
        self._coder = coder or Bitpack()

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002 (seeded)
        """Scales, then codes."""
        padded = np.zeros(padded_size(values_N.size), dtype=np.float32)
        padded[: values_N.size] = values_N
        unit = _unit(values_N)
        padded /= unit
        scales, codes = [], []
        for part, size in blocks(values_N.size):
            x_BD = padded[part].reshape(-1, size)
            y_BD = rotated(x_BD, signs(seed, part).reshape(-1, size))
            kept_BD = self._kept(seed, values_N.size, part, size)
            y_BK = y_BD if kept_BD is None else y_BD[kept_BD].reshape(len(y_BD), -1)
            code_BK = self._codes(y_BK, np.sqrt(_dot(y_BD, y_BD) / np.float32(size))[:, None])
            scales.append(unit * self._scales(y_BK, self._rounded(y_BK, code_BK)) * self._gain(size))
            codes.append(code_BK.reshape(-1))
        head = np.concatenate(scales).astype("<f4").tobytes()
        return head + self._coder.encode(np.concatenate(codes), self._levels.size)

    def read(self, reader: Reader, count: int, seed: int) -> Coded:
        """Signs stay packed; other levels are rotated back at once."""
        parts = list(blocks(count))
        scales_B = reader.floats(sum((part.stop - part.start) // size for part, size in parts), "scales")
        if scales_B.min() < 0 or scales_B.max() > _LARGEST_SCALE:
            raise Malformed(f"scales from {scales_B.min()} to {scales_B.max()}: expected 0 to {_LARGEST_SCALE:g}")
        if self._is_signs:
            packed = read_packed(reader, padded_size(count), 1)
            return RotatedSigns(scales_B * self._levels[1], packed, count, seed)
        total = sum((part.stop - part.start) // size * self._wanted(size) for part, size in parts)
        codes = self._coder.decode(reader, total, self._levels.size)
        values, block, code = np.empty(padded_size(count), dtype=np.float32), 0, 0
        for part, size in parts:
            number, wanted = (part.stop - part.start) // size, self._wanted(size)
            y_BK = self._levels.take(codes[code : code + number * wanted]).reshape(number, wanted)
            y_BK *= scales_B[block : block + number, None]
            kept_BD, y_BD = self._kept(seed, count, part, size), y_BK
            if kept_BD is not None:
                y_BD = np.zeros((number, size), dtype=np.float32)
                y_BD[kept_BD] = y_BK.reshape(-1)
            values[part] = unrotated(y_BD, signs(seed, part).reshape(number, size)).reshape(-1)
            block, code = block + number, code + number * wanted
        return Dense(values[:count])

    def run(self, counts: Sequence[int], seeds: Sequence[int]) -> RunLayout | None:
        """At one bit, a scale for each block."""
        if not self._is_signs:
            return None
        return RunLayout.of(counts, seeds, rotated=True, gain=float(self._levels[1]), largest=_LARGEST_SCALE)

    @property
    def _is_signs(self) -> bool:
        return self._levels.size == 2 and self._share == 1

    def _wanted(self, size: int) -> int:
        return ceil(self._share * size)

    def _kept(self, seed: int, count: int, part: slice, size: int) -> npt.NDArray[np.bool_] | None:
        """Which values of each block are sent; None for all."""
        if self._share == 1:
            return None
        behind = padded_size(count) // 64
        draws_BD = stream(seed, behind + part.start, behind + part.stop).reshape(-1, size)
        wanted = self._wanted(size)
        kept_BD = draws_BD <= np.partition(draws_BD, wanted - 1, axis=1)[:, wanted - 1 : wanted]
        if int(kept_BD.sum()) > wanted * len(kept_BD):  # equal words, once in a million years
            ranks_BD = np.argsort(np.argsort(draws_BD, axis=1, kind="stable"), axis=1)
            kept_BD = ranks_BD < wanted
        return kept_BD

    def _codes(self, y_BK: Float32, deviation_B1: Float32) -> UInt8:
        code_BK = np.zeros(y_BK.shape, dtype=np.uint8)
        for border in self._borders:
            code_BK += y_BK > border * deviation_B1
        return code_BK

    def _rounded(self, y_BK: Float32, code_BK: UInt8) -> Float32:
        if self._levels.size == 2:
            return np.copysign(self._levels[1], y_BK)  # several times faster than a table
        return self._levels.take(code_BK)

    def _scales(self, y_BK: Float32, level_BK: Float32) -> Float32:
        along_B = _dot(y_BK, level_BK)
        if self._contractive:
            return np.maximum(along_B / _dot(level_BK, level_BK), 0)
        return np.divide(_dot(y_BK, y_BK), along_B, out=np.zeros_like(along_B), where=along_B > 0)

    def _gain(self, size: int) -> np.float32:
        return np.float32(1 if self._contractive else size / self._wanted(size))


def _unit(values_N: Float32) -> np.float32:
    """A power of two that brings the largest magnitude near 1, so that squares neither overflow nor vanish."""
    _, exponent = np.frexp(max(values_N.max(), -values_N.min()))
    return np.ldexp(np.float32(1), max(int(exponent), -120))


def _dot(a_BK: Float32, b_BK: Float32) -> Float32:
    """Row by row."""
    return np.einsum("bk,bk->b", a_BK, b_BK)
