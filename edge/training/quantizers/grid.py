"""Integer codes of a weight from its position w/s: the grids of `protocol.precision` and `protocol.weights`."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Final, Self

from torch import Tensor

from protocol.precision import MAX_WEIGHT_CODE, is_mid_rise, max_code

BINARY_CLIP: Final = 3.0
"""A latent further out than three mean magnitudes will not change its sign soon, and would only grow."""


class Form(IntEnum):
    """How a position becomes a code; `_kernel.c` has the same numbers.

    TREAD: clip(⌊p⌉, −Q, Q), half to even. RISE: clip(2·⌊p/2⌋ + 1, −Q, Q). LEADING: the leading bits of the 8-bit code.
    """

    TREAD = 0
    RISE = 1
    LEADING = 2


@dataclass(frozen=True, slots=True)
class Grid:
    """Codes of one width.

    Attributes:
        form: how they come from positions.
        limit: the largest of them; of leading bits, the largest 8-bit code.
        reach: positions up to here, on either side, are inside.
        unit: what one code is worth, in steps.
        share: of leading bits, what remains of an 8-bit code, 2^(b − 7).
        lowest: of leading bits, the lowest code, 1 − 2^b.
    """

    form: Form
    limit: int
    reach: float
    unit: float = 1.0
    share: float = 1.0
    lowest: int = 0

    @classmethod
    @cache
    def own(cls, bits: int) -> Self:
        """Of a width's own grid, 1 to 8 and 16 bits."""
        limit = max_code(bits)
        return cls(Form.RISE if is_mid_rise(bits) else Form.TREAD, limit, BINARY_CLIP if bits == 1 else limit)

    @classmethod
    @cache
    def nested(cls, bits: int) -> Self:
        """Of the leading bits of 8-bit codes, 1 to 6 and 8."""
        limit = MAX_WEIGHT_CODE
        if bits == 8:
            return cls(Form.TREAD, limit, limit)
        return cls(Form.LEADING, limit, limit, 2.0 ** (6 - bits), 2.0 ** (bits - 7), 1 - (1 << bits))

    def encode_(self, position: Tensor) -> Tensor:
        """`protocol.precision.quantize_weight` and `protocol.weights.leading_bits`, in place."""
        if self.form is Form.RISE:
            return position.mul_(0.5).floor_().mul_(2).add_(1).clamp_(-self.limit, self.limit)
        position.round_().clamp_(-self.limit, self.limit)
        if self.form is Form.TREAD:
            return position
        leading = position.add_(self.limit).clamp_max_(2 * self.limit - 1).mul_(self.share)
        return leading.floor_().mul_(2).add_(self.lowest)
