"""Weights on a symmetric grid per output channel: own grids of each width, and the leading bits of one 8-bit code.

Own grids, 2 to 8 and 16 bits: S. K. Esser et al., "Learned Step Size Quantization", ICLR 2020, arXiv 1902.08153. With
λ = log s, q the integer code of w and Q the largest:

    forward       ŵ = s·q        q = clip(⌊w/s⌉, −Q, Q)                  (mid-tread, half to even)
                                 q = clip(2·⌊w/(2s)⌋ + 1, −Q, Q)         (mid-rise, 1 and 2 bits)
    straight      ∂ŵ/∂w = 1 where |w| ≤ Q·s, else 0
    step          ∂ŵ/∂λ = ŵ − w where |w| ≤ Q·s, else ŵ

1 bit: s = mean|w| is not learned, and the gradient passes where |w| ≤ BINARY_CLIP·s (M. Rastegari et al., "XNOR-Net",
ECCV 2016, arXiv 1603.05279, with the clip of I. Hubara et al., "Binarized Neural Networks", NeurIPS 2016, in units of
the channel's own scale).

Nested codes, 1 to 6 and 8 bits: `protocol.weights`. With λ = log s of the 8-bit code, ρ = log r of the width, and
q the odd code of the leading bits:

    forward       ŵ = r·s·2^(6−b)·q        at 8 bits ŵ = s·q, as above
    straight      ∂ŵ/∂w = r where |w| ≤ 64·s, else 0
    step          ∂ŵ/∂λ = ŵ − r·w where |w| ≤ 64·s, else ŵ
    scale         ∂ŵ/∂ρ = ŵ

Gradients of λ and ρ are scaled by 1/√(N·Q), N the weights of a channel and Q the largest code of the width.

Latents are the only large thing kept, and the optimizer keeps them anyway; codes are computed again in the backward
pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from edge.training.quantizers.blocks import aligned, blocks, dense, rows, rows_at_once, step_of
from protocol.precision import MAX_WEIGHT_CODE, MIN_STEP, is_mid_rise, max_code
from protocol.weights import require_nested

BINARY_CLIP: Final = 3.0
"""A latent further out than three mean magnitudes will not change its sign soon, and would only grow."""


def quantize_weight(weight_OX: Tensor, log_step_O: Tensor | None, bits: int) -> Tensor:
    """Weights on the width's own grid, as float32 multiples of the step.

    Args:
        weight_OX: float32[O, …] latents.
        log_step_O: float32[O], None at one bit.
        bits: 1 to 8 or 16; above, weights stay as they are.
    """
    if bits > 16:
        return weight_OX
    return _Weight.apply(weight_OX, log_step_O, None, _Grid(bits))  # type: ignore[no-untyped-call]


def nested_weight(weight_OX: Tensor, log_step_O: Tensor, log_scale_O: Tensor | None, bits: int) -> Tensor:
    """Weights on the grid of the leading bits of their 8-bit codes.

    Args:
        weight_OX: float32[O, …] latents.
        log_step_O: float32[O], of the 8-bit code.
        log_scale_O: float32[O], of the width; None at 8 bits.
        bits: 1 to 6 or 8.

    Raises:
        Unsupported: nested codes have no such width.
    """
    require_nested(bits)
    return _Weight.apply(weight_OX, log_step_O, log_scale_O, _Grid(bits, nested=True))  # type: ignore[no-untyped-call]


def unit_of(weight_OX: Tensor, log_step_O: Tensor | None, log_scale_O: Tensor | None, bits: int) -> Tensor:
    """What one integer of the weights is worth, float32[O]; arguments as above, a scale where codes are nested."""
    step_O = binary_step(weight_OX) if log_step_O is None else step_of(log_step_O)
    return step_O if log_scale_O is None else step_of(log_scale_O) * step_O * _Grid(bits, nested=True).unit


@dataclass(frozen=True, slots=True)
class _Grid:
    """Codes of one width, from positions w/s."""

    bits: int
    nested: bool = False

    @property
    def reach(self) -> float:
        """Positions up to here, on either side, are inside."""
        if self.nested:
            return MAX_WEIGHT_CODE
        return BINARY_CLIP if self.bits == 1 else max_code(self.bits)

    @property
    def unit(self) -> float:
        """What one code is worth, in steps."""
        return 2.0 ** (6 - self.bits) if self.nested and self.bits < 8 else 1.0

    def encode_(self, position: Tensor) -> Tensor:
        """`protocol.precision.quantize_weight` and `protocol.weights.leading_bits`, in place."""
        if self.nested:
            position.round_().clamp_(-MAX_WEIGHT_CODE, MAX_WEIGHT_CODE)
            if self.bits == 8:
                return position
            leading = position.add_(MAX_WEIGHT_CODE).clamp_max_(2 * MAX_WEIGHT_CODE - 1).mul_(2.0 ** (self.bits - 7))
            return leading.floor_().mul_(2).add_(1 - (1 << self.bits))
        if is_mid_rise(self.bits):
            position.mul_(0.5).floor_().mul_(2).add_(1)
        else:
            position.round_()
        limit = max_code(self.bits)
        return position.clamp_(-limit, limit)


class _Weight(Function):
    """Any grid; no step to learn at one bit, a scale only where codes are nested and narrower than 8 bits."""

    @staticmethod
    def forward(
        ctx: Any, weight_OX: Tensor, log_step_O: Tensor | None, log_scale_O: Tensor | None, grid: _Grid
    ) -> Tensor:
        weight_OX = dense(weight_OX)
        step_O = binary_step(weight_OX) if log_step_O is None else step_of(log_step_O)
        scale_O = None if log_scale_O is None else step_of(log_scale_O)
        quantized_OX = torch.empty_like(weight_OX)
        unit_O = step_O if scale_O is None else scale_O * step_O * grid.unit
        for weight, step, unit, level in _by_rows(weight_OX, step_O[:, None], unit_O[:, None], quantized_OX):
            grid.encode_(torch.div(weight, step, out=level)).mul_(unit)
        ctx.save_for_backward(weight_OX, step_O, scale_O)
        ctx.grid, ctx.learned = grid, log_step_O is not None
        return quantized_OX

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_OX: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        weight_OX, step_O, scale_O = ctx.saved_tensors
        grid: _Grid = ctx.grid
        reach = float(np.nextafter(np.float32(grid.reach), np.float32(inf)))  # hardtanh_backward leaves out the bound
        passed_OX = torch.empty_like(weight_OX)
        along_code_O, along_position_O = torch.empty_like(step_O), torch.empty_like(step_O)
        parts = _by_rows(
            weight_OX, step_O[:, None], aligned(gradient_OX, weight_OX), passed_OX, along_code_O, along_position_O
        )
        for weight, step, gradient, passed, along_code, along_position in parts:
            position = weight / step
            torch.ops.aten.hardtanh_backward(gradient, position, -reach, reach, grad_input=passed)
            if ctx.learned:
                torch.sum(passed * position, dim=1, out=along_position)
                torch.sum(grid.encode_(position).mul_(gradient), dim=1, out=along_code)
        if not ctx.learned:
            return passed_OX, None, None, None
        damping = 1.0 / sqrt(weight_OX[0].numel() * max_code(grid.bits))
        if scale_O is None:
            return passed_OX, (along_code_O - along_position_O).mul_(step_O * damping), None, None
        worth_O = scale_O * step_O * damping
        along_scale_O = along_code_O * worth_O * grid.unit
        passed_OX.mul_(scale_O.view(-1, *(1,) * (weight_OX.dim() - 1)))
        return passed_OX, along_scale_O - along_position_O * worth_O, along_scale_O, None


def _by_rows(weight_OX: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows of dense tensors that have one row for each output channel; vectors as they are."""
    return blocks(rows_at_once(weight_OX), *(x if x.dim() == 1 else rows(x) for x in (weight_OX, *others)))


def binary_step(weight_OX: Tensor) -> Tensor:
    """`protocol.precision.binary_step`, float32[O]: the mean magnitude in float64, then float32."""
    sum_O = torch.linalg.vector_norm(rows(dense(weight_OX)), ord=1, dim=1, dtype=torch.float64)
    return (sum_O / weight_OX[0].numel()).float().clamp_(min=float(MIN_STEP))
