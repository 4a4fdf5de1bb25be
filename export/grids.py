"""The integers that a weight may be: the grids of `protocol.precision`, or the leading bits of a nested code."""

from dataclasses import dataclass

import numpy as np

from protocol.architecture import Architecture, Layer
from protocol.precision import Int8, Precision, UInt8, is_mid_rise, max_code


@dataclass(frozen=True, slots=True)
class Grid:
    """The integers −largest, −largest + spacing, …, largest of `bits` bits."""

    bits: int
    largest: int
    spacing: int

    @property
    def has_zero(self) -> bool:
        """Whether 0 is one of them."""
        return self.largest % self.spacing == 0

    def holds(self, codes_OX: Int8) -> bool:
        """Whether every code is one of them."""
        shifted = codes_OX.astype(np.int16) + self.largest
        return bool(((shifted >= 0) & (shifted <= 2 * self.largest) & (shifted % self.spacing == 0)).all())

    def index(self, codes_N: Int8) -> UInt8:
        """Codes as 0, 1, 2 …, uint8[N]."""
        return ((codes_N.astype(np.int16) + self.largest) // self.spacing).astype(np.uint8)


def grid_of(architecture: Architecture, layer: Layer, precision: Precision) -> Grid:
    """The grid of a layer's weights at 1 to 8 bits."""
    bits = precision.bits_of(pinned=layer.pinned)
    if architecture.nested and bits < 8:
        return Grid(bits, (1 << bits) - 1, 2)
    return Grid(bits, max_code(bits), 2 if is_mid_rise(bits) else 1)
