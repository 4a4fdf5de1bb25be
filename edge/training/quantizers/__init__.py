"""Fake quantization, each quantizer one fused autograd function.

Codes are those of `protocol.precision` and `protocol.weights` bit for bit; gradients are straight-through. Learned
steps are natural logarithms λ = log s: they stay positive, and averaging λ over devices averages s geometrically.
"""

from edge.training.quantizers.activations import quantize_activation, quantize_with_offset
from edge.training.quantizers.affine import affine_weight
from edge.training.quantizers.blocks import step_of
from edge.training.quantizers.grid import BINARY_CLIP
from edge.training.quantizers.noise import noisy_weight
from edge.training.quantizers.signs import quantize_sign
from edge.training.quantizers.standard import standardized
from edge.training.quantizers.weights import nested_weight, quantize_weight, unit_of

__all__ = [
    "BINARY_CLIP",
    "affine_weight",
    "nested_weight",
    "noisy_weight",
    "quantize_activation",
    "quantize_sign",
    "quantize_weight",
    "quantize_with_offset",
    "standardized",
    "step_of",
    "unit_of",
]
