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

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from edge.training.quantizers.blocks import aligned, dense, rows, step_of
from edge.training.quantizers.grid import Grid
from edge.training.quantizers.kernel import kernel_for
from protocol.precision import MIN_STEP, max_code
from protocol.weights import require_nested


def quantize_weight(weight_OX: Tensor, log_step_O: Tensor | None, bits: int) -> Tensor:
    """Weights on the width's own grid, as float32 multiples of the step.

    Args:
        weight_OX: float32[O, …] latents.
        log_step_O: float32[O], None at one bit.
        bits: 1 to 8 or 16; above, weights stay as they are.
    """
    if bits > 16:
        return weight_OX
    return _Weight.apply(weight_OX, log_step_O, None, Grid.own(bits), bits)  # type: ignore[no-untyped-call]


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
    return _Weight.apply(weight_OX, log_step_O, log_scale_O, Grid.nested(bits), bits)  # type: ignore[no-untyped-call]


def unit_of(weight_OX: Tensor, log_step_O: Tensor | None, log_scale_O: Tensor | None, bits: int) -> Tensor:
    """What one integer of the weights is worth, float32[O]; arguments as above, a scale where codes are nested."""
    step_O = binary_step(weight_OX) if log_step_O is None else step_of(log_step_O)
    return step_O if log_scale_O is None else step_of(log_scale_O) * step_O * Grid.nested(bits).unit


class _Weight(Function):
    """Any grid; no step to learn at one bit, a scale only where codes are nested and narrower than 8 bits."""

    @staticmethod
    def forward(
        ctx: Any, weight_OX: Tensor, log_step_O: Tensor | None, log_scale_O: Tensor | None, grid: Grid, bits: int
    ) -> Tensor:
        weight_OX = dense(weight_OX)
        step_O = binary_step(weight_OX) if log_step_O is None else step_of(log_step_O)
        scale_O = None if log_scale_O is None else step_of(log_scale_O)
        quantized_OX = torch.empty_like(weight_OX)
        unit_O = step_O if scale_O is None else scale_O * step_O * grid.unit
        kernel_for(weight_OX).quantize_rows(weight_OX, quantized_OX, step_O, unit_O, grid)
        ctx.save_for_backward(weight_OX, step_O, scale_O)
        ctx.grid, ctx.bits, ctx.learned = grid, bits, log_step_O is not None
        return quantized_OX

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_OX: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        weight_OX, step_O, scale_O = ctx.saved_tensors
        grid: Grid = ctx.grid
        gradient_OX, passed_OX = aligned(gradient_OX, weight_OX), torch.empty_like(weight_OX)
        along_code_O, along_position_O = kernel_for(weight_OX).pass_rows(
            weight_OX, gradient_OX, passed_OX, step_O, grid
        )
        if not ctx.learned:
            return passed_OX, None, None, None, None
        damping = 1.0 / sqrt(weight_OX[0].numel() * max_code(ctx.bits))
        if scale_O is None:
            return passed_OX, (along_code_O - along_position_O).mul_(step_O * damping), None, None, None
        worth_O = scale_O * step_O * damping
        along_scale_O = along_code_O * worth_O * grid.unit
        passed_OX.mul_(scale_O.view(-1, *(1,) * (weight_OX.dim() - 1)))
        return passed_OX, along_scale_O - along_position_O * worth_O, along_scale_O, None, None


def binary_step(weight_OX: Tensor) -> Tensor:
    """`protocol.precision.binary_step`, float32[O]: the mean magnitude in float64, then float32."""
    sum_O = torch.linalg.vector_norm(rows(dense(weight_OX)), ord=1, dim=1, dtype=torch.float64)
    return (sum_O / weight_OX[0].numel()).float().clamp_(min=float(MIN_STEP))
