"""Fake quantization with learned steps, each quantizer one fused autograd function.

S. K. Esser, J. L. McKinstry, D. Bablani, R. Appuswamy, D. S. Modha, "Learned Step Size Quantization", ICLR 2020,
arXiv 1902.08153. Steps are learned as natural logarithms λ = log s: they stay positive, and averaging λ over devices
averages s geometrically. With q = the integer code of v and [L, H] its range:

    forward       v̂ = s·q,    q = clip(⌊v/s⌉, L, H)                     (mid-tread grids, half to even)
                              q = clip(2·⌊v/(2s)⌋ + 1, L, H)             (mid-rise grids, 1 and 2 bits)
    straight      ∂v̂/∂v = 1 where L ≤ v/s ≤ H, else 0
    step          ∂v̂/∂λ = s·∂v̂/∂s = v̂ − v where L ≤ v/s ≤ H, else v̂
    gradient of λ scaled by 1/√(N·H), N the values that share the step (of one picture, for activations)

1-bit weights have no learned step: v̂ = mean|v|·sign(v) per output channel, and the gradient passes where
|v| ≤ BINARY_CLIP·mean|v| (Rastegari et al., "XNOR-Net", ECCV 2016, arXiv 1603.05279, with the clip of Hubara et al.,
"Binarized Neural Networks", NeurIPS 2016, in units of the channel's own scale).

Each function saves its input alone and recomputes codes in the backward pass: a quarter more arithmetic for half the
memory, which is what a 1 GB board lacks.
"""

from math import sqrt
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from protocol.precision import MIN_STEP, activation_range, is_mid_rise, max_code

BINARY_CLIP: Final = 3.0
"""A latent further out than three mean magnitudes will not change its sign soon, and would only grow."""


def quantize_weight(weight_OX: Tensor, log_step_O: Tensor | None, bits: int) -> Tensor:
    """Weights on the grid of `bits`, as float32 multiples of the step.

    Args:
        weight_OX: float32[O, …] latents.
        log_step_O: float32[O], None at one bit.
        bits: 1 to 8; above, weights stay as they are.
    """
    if bits > 8:
        return weight_OX
    if bits == 1:
        return _BinaryWeight.apply(weight_OX)  # type: ignore[no-untyped-call]
    return _SteppedWeight.apply(weight_OX, log_step_O, bits)  # type: ignore[no-untyped-call]


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
    return _Activation.apply(values_NX, log_step, low, high)  # type: ignore[no-untyped-call]


class _SteppedWeight(Function):
    """2 to 8 bits, one learned step per output channel."""

    @staticmethod
    def forward(ctx: Any, weight_OX: Tensor, log_step_O: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight_OX, log_step_O)
        ctx.bits = bits
        step = _per_channel(step_of(log_step_O), weight_OX)
        return _weight_codes(weight_OX, step, bits).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        weight_OX, log_step_O = ctx.saved_tensors
        limit = max_code(ctx.bits)
        step = _per_channel(step_of(log_step_O), weight_OX)
        quantized = _weight_codes(weight_OX, step, ctx.bits).mul_(step)
        passed = gradient * (weight_OX.abs() <= limit * step)
        per_value = gradient * quantized - passed * weight_OX
        scale = 1.0 / sqrt(weight_OX[0].numel() * limit)
        return passed, per_value.flatten(1).sum(1).mul_(scale), None


class _BinaryWeight(Function):
    """1 bit, scale mean|w| per output channel."""

    @staticmethod
    def forward(ctx: Any, weight_OX: Tensor) -> Tensor:
        ctx.save_for_backward(weight_OX)
        step = _mean_magnitude(weight_OX)
        return _weight_codes(weight_OX, step, bits=1).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (weight_OX,) = ctx.saved_tensors
        return gradient * (weight_OX.abs() <= BINARY_CLIP * _mean_magnitude(weight_OX))


class _Activation(Function):
    """Any width, one learned step for the scale group."""

    @staticmethod
    def forward(ctx: Any, values_NX: Tensor, log_step: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(values_NX, log_step)
        ctx.low, ctx.high = low, high
        step = step_of(log_step)
        return (values_NX / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        values_NX, log_step = ctx.saved_tensors
        low, high, step = ctx.low, ctx.high, step_of(log_step)
        position = values_NX / step
        passed = gradient * ((position >= low) & (position <= high))
        quantized = position.round_().clamp_(low, high).mul_(step)
        along_step = (quantized.mul_(gradient)).sum() - (passed * values_NX).sum()
        scale = 1.0 / sqrt(values_NX[0].numel() * max(high, 1))
        return passed, along_step.mul_(scale).reshape(1), None, None


def step_of(log_step: Tensor) -> Tensor:
    """The step in float64 arithmetic, rounded to float32: libraries differ in the last bit of a float32 exponential."""
    return log_step.double().exp().float()


def _weight_codes(weight_OX: Tensor, step: Tensor, bits: int) -> Tensor:
    """`protocol.precision.quantize_weight`, the same float32 operations in the same order."""
    limit = max_code(bits)
    if is_mid_rise(bits):
        codes = (weight_OX / (2 * step)).floor_().mul_(2).add_(1)
    else:
        codes = (weight_OX / step).round_()
    return codes.clamp_(-limit, limit)


def _mean_magnitude(weight_OX: Tensor) -> Tensor:
    """`protocol.precision.binary_step`: the mean in float64, then float32."""
    mean_O = weight_OX.abs().flatten(1).mean(1, dtype=torch.float64).float()
    return _per_channel(mean_O.clamp_(min=float(MIN_STEP)), weight_OX)


def _per_channel(values_O: Tensor, like_OX: Tensor) -> Tensor:
    return values_O.view(-1, *(1,) * (like_OX.dim() - 1))
