"""One affine grid per weight tensor, from minima and maxima: the scheme of "Federated Binary Quantization".

    a = mean over output channels of min w        z = mean of max w        s = (z − a)/(2^b − 1)
    forward       ŵ = a + s·clip(⌊(w − a)/s⌉, 0, 2^b − 1)
    1 bit         ŵ = mean|w|·sign(w), the mean over the whole tensor
    gradient      ∂ŵ/∂w = 1 everywhere: what lies outside the grid is not held back

The ends are not learned and have no gradient. The grid has no zero of its own, so it stays in training: what is
exported are the codes of `protocol.weights`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from protocol.precision import MIN_STEP


def affine_weight(weight_OX: Tensor, bits: int) -> Tensor:
    """Weights on the tensor's own affine grid, at most 2^bits values.

    Args:
        weight_OX: float32[O, …] latents.
        bits: 1 to 16.
    """
    return _Straight.apply(weight_OX, bits)  # type: ignore[no-untyped-call]


class _Straight(Function):
    """Not as w + (ŵ − w).detach(): that sum is rounded, and there would be more than 2^bits values."""

    @staticmethod
    def forward(_: Any, weight_OX: Tensor, bits: int) -> Tensor:
        return _signs(weight_OX) if bits == 1 else _levels(weight_OX, bits)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _signs(weight_OX: Tensor) -> Tensor:
    mean = weight_OX.abs().mean().clamp_min(float(MIN_STEP))
    return torch.where(weight_OX >= 0, mean, -mean)


def _levels(weight_OX: Tensor, bits: int) -> Tensor:
    rows_OX, top = weight_OX.flatten(1), (1 << bits) - 1
    low, high = rows_OX.amin(1).mean(), rows_OX.amax(1).mean()
    step = ((high - low) / top).clamp_min(float(MIN_STEP))
    return ((weight_OX - low) / step).round_().clamp_(0, top).mul_(step).add_(low)
