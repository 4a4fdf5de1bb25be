"""Weight standardization: S. Qiao et al., arXiv 1903.10520.

With the filter w of one output channel, c = w − mean(w) and n = √(Σc² + ε):

    forward       y = c/n                                         `protocol.weights.standardized`, sums in float64
    gradient      ∂L/∂w = (g − mean(g) − y·Σ(g·y))/n              g = ∂L/∂y; mean(y) is 0
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from edge.training.quantizers.blocks import aligned, blocks, dense, rows, rows_at_once
from protocol.weights import STANDARD_EPSILON


def standardized(weight_OX: Tensor) -> Tensor:
    """Each filter of float32[O, …] with mean 0 and Euclidean norm 1."""
    return _Standardized.apply(weight_OX)  # type: ignore[no-untyped-call]


class _Standardized(Function):
    """Saves its output, which the quantizer behind it keeps as well, and one norm per channel."""

    @staticmethod
    def forward(ctx: Any, weight_OX: Tensor) -> Tensor:
        weight_OX = dense(weight_OX)
        standard_OX = torch.empty_like(weight_OX)
        count, norms = rows_at_once(weight_OX), []
        for weight, standard in blocks(count, rows(weight_OX), rows(standard_OX)):
            centred = weight.double()
            centred.sub_(centred.mean(1, keepdim=True))
            norm = centred.square().sum(1, keepdim=True).add_(STANDARD_EPSILON).sqrt_()
            standard.copy_(centred.div_(norm))
            norms.append(norm)
        ctx.save_for_backward(standard_OX, torch.cat(norms).float())
        return standard_OX

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_OX: Tensor) -> Tensor:
        standard_OX, norm_O1 = ctx.saved_tensors
        passed_OX, count = torch.empty_like(standard_OX), rows_at_once(standard_OX)
        tensors = (rows(standard_OX), norm_O1, rows(aligned(gradient_OX, standard_OX)), rows(passed_OX))
        for standard, norm, gradient, passed in blocks(count, *tensors):
            along = (gradient * standard).sum(1, keepdim=True)
            torch.addcmul(gradient - gradient.mean(1, keepdim=True), standard, along, value=-1, out=passed).div_(norm)
        return passed_OX
