"""Activations on a grid with a learned step, and with a learned offset where they are signed and narrow.

S. K. Esser, J. L. McKinstry, D. Bablani, R. Appuswamy, D. S. Modha, "Learned Step Size Quantization", ICLR 2020,
arXiv 1902.08153. Y. Bhalgat et al., "LSQ+", CVPR Workshops 2020, arXiv 2004.09576. With λ = log s and codes in [L, H]:

    forward       v̂ = s·clip(⌊v/s⌉, L, H)                                half to even
    straight      ∂v̂/∂v = 1 where L ≤ v/s ≤ H, else 0
    step          ∂v̂/∂λ = v̂ − v where L ≤ v/s ≤ H, else v̂

With an offset β (LSQ+) the range is [−z, P − z], P = 2^b − 1, and moves with the zero point z = clip(⌊−β/s⌉, 0, P),
rounded so that what is trained is an integer grid, as exported:

    step          ∂v̂/∂λ = v̂ − v inside, s·P above, 0 below              (v̂ = s·code + β, code in [0, P])
    offset        ∂v̂/∂β = 0 inside, 1 outside

Gradients of λ and β are scaled by 1/√(N·H) (with an offset 1/√(N·P)), N the values of one picture.

What the backward pass needs of a value is saved in one byte (`twin`). Normalisation keeps its own input already, and
the next convolution its: the fp32 values between the two, which would come to half as much again, are not kept.
"""

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from edge.training.quantizers.blocks import aligned, dense, step_of
from edge.training.quantizers.kernel import kernel_for
from protocol.precision import activation_range


def quantize_activation(values_NX: Tensor, log_step: Tensor, bits: int, *, signed: bool) -> Tensor:
    """Activations on their group's grid, as float32 multiples of the step.

    The unsigned range begins at zero, so this is the ReLU as well.

    Args:
        values_NX: float32[N, …], one row a picture.
        log_step: float32[1], the group's.
        bits: 1 to 8.
        signed: whether the range has negative integers.
    """
    low, high = activation_range(bits, signed=signed)
    return _quantize(values_NX, log_step, None, low, high)


def quantize_with_offset(values_NX: Tensor, log_step: Tensor, offset: Tensor, bits: int) -> Tensor:
    """Signed activations on a grid of 2^bits levels that lies where the offset says, as multiples of the step.

    Args:
        values_NX: float32[N, …], one row a picture.
        log_step: float32[1], the group's.
        offset: float32[1], the lowest level before it is rounded to a multiple of the step.
        bits: 2 to 4.
    """
    top = (1 << bits) - 1
    zero = int((-offset.detach() / step_of(log_step.detach())).round().clamp(0, top))
    return _quantize(values_NX, log_step, offset, -zero, top - zero)


def _quantize(values_NX: Tensor, log_step: Tensor, offset: Tensor | None, low: int, high: int) -> Tensor:
    if torch.is_grad_enabled():
        return _Activation.apply(values_NX, log_step, offset, low, high)  # type: ignore[no-untyped-call]
    step = step_of(log_step)
    return (values_NX / step).round_().clamp_(low, high).mul_(step)


class _Activation(Function):
    """Any width, one learned step for the scale group."""

    @staticmethod
    def forward(ctx: Any, values_NX: Tensor, log_step: Tensor, offset: Tensor | None, low: int, high: int) -> Tensor:
        values, step = dense(values_NX), step_of(log_step)
        quantized, trace = torch.empty_like(values), torch.empty_like(values, dtype=torch.int8)
        kernel_for(values).quantize_values(values, quantized, trace, step, low, high)
        ctx.save_for_backward(trace, step)
        ctx.low, ctx.high, ctx.with_offset = low, high, offset is not None
        return quantized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        trace, step = ctx.saved_tensors
        low, high = ctx.low, ctx.high
        passed, gradient = torch.empty_like(trace, dtype=gradient.dtype), aligned(gradient, trace)
        rounding, ends, clipped = kernel_for(gradient).pass_values(gradient, trace, passed)
        above, below = (clipped + ends) / 2, (clipped - ends) / 2
        if ctx.with_offset:
            low, high = 0, high - low
        scale = 1.0 / sqrt(trace[0].numel() * max(high, 1))
        along_step = (step * (above * high + below * low - rounding) * scale).float()
        along_offset = (step.new_ones(1) * clipped * scale).float() if ctx.with_offset else None
        return passed, along_step, along_offset, None, None
