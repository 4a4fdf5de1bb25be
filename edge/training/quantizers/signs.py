"""Signed activations of one bit: ±step around a learned threshold per channel.

Z. Liu et al., "Bi-Real Net", ECCV 2018, arXiv 1808.00278 (the gradient); "ReActNet", ECCV 2020, arXiv 2003.03488 (the
threshold). With u = (v − t)/s and λ = log s:

    forward       v̂ = s where v ≥ t, else −s
    straight      ∂v̂/∂v = 2 − 2|u| where |u| < 1, else 0         a triangle of area 2s, the height of the jump
    threshold     ∂v̂/∂t = −∂v̂/∂v, summed over a channel
    step          ∂v̂/∂λ = v̂

Gradients of λ and t are scaled by 1/√N, N the values of one picture that share them. The step is the width of the
triangle as well, but its gradient is that of the levels alone: no level depends on the width.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from edge.training.quantizers.blocks import step_of


def quantize_sign(values_NCHW: Tensor, log_step: Tensor, threshold_C: Tensor) -> Tensor:
    """Activations as plus or minus the step.

    Args:
        values_NCHW: float32[N, C, H, W].
        log_step: float32[1], the group's.
        threshold_C: float32[C].
    """
    return _Sign.apply(values_NCHW, log_step, threshold_C)  # type: ignore[no-untyped-call]


class _Sign(Function):
    """Saves its input; all of it is needed, since every value has its own slope."""

    @staticmethod
    def forward(ctx: Any, values_NCHW: Tensor, log_step: Tensor, threshold_C: Tensor) -> Tensor:
        ctx.save_for_backward(values_NCHW, log_step, threshold_C)
        return _signs(values_NCHW, threshold_C).mul_(step_of(log_step))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values_NCHW, log_step, threshold_C = ctx.saved_tensors
        step, per_picture = step_of(log_step), values_NCHW[0].numel()
        slope = (values_NCHW - threshold_C.view(-1, 1, 1)).div_(step).abs_().mul_(-2).add_(2).clamp_min_(0)
        passed = slope.mul_(gradient)
        along_threshold_C = passed.sum((0, 2, 3)).mul_(-1.0 / sqrt(per_picture // len(threshold_C)))
        levels = _signs(values_NCHW, threshold_C).mul_(gradient)
        along_step = levels.sum() * step / sqrt(per_picture)
        return passed, along_step, along_threshold_C


def _signs(values_NCHW: Tensor, threshold_C: Tensor) -> Tensor:
    """1 where v ≥ t, else −1; comparing in place keeps float32, which is many times faster than by way of bool."""
    threshold = threshold_C.view(-1, 1, 1)
    return values_NCHW.clone(memory_format=torch.preserve_format).ge_(threshold).mul_(2).sub_(1)
