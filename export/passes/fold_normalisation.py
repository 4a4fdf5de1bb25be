"""Pass: normalisation disappears into the convolution before it.

B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv 1712.05877, section 3.2. With the gain g = γ/√(σ² + ε),

    γ·(v − μ)/√(σ² + ε) + β = g·v + (β − μ·g),    v = s_x·s_w·Σ q_x·q_w

so the scale becomes s_w·|g| and the constant β − μ·g becomes a bias in units of s_x·s_w·|g|. Weight integers keep
their magnitude. The cases, each with a test of its number:

1. Float network: weights times g, bias β − μ·g.
2. g > 0: codes unchanged.
3. g < 0: the sign moves into the codes, because a scale is positive.
4. g = 0, or so small that scales leave float32's normal numbers: the channel is dead, it shows its constant. The
   scale is chosen such that the bias becomes ±`MAX_BIAS`, and codes become 0. The grids of 1 and 2 bits have no 0:
   there the codes stay, and beside such a bias they move the output by less than a level.
5. g so small that the bias would pass `MAX_BIAS`: dead as well. Its weights would have moved the output by at most
   1/14 of its constant with every input at 255, and by far less than a level with real ones.
6. No normalisation (the classifier): g = 1, and the trained bias is the constant.
"""

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from export.arithmetic import multiplier
from export.errors import ExportError
from export.graph import Coded, FoldedFloat, FoldedInteger, Graph, Latent, Norm
from protocol.architecture import NORM_EPSILON, Layer
from protocol.precision import Float32, Int8, is_mid_rise

T = TypeVar("T", bound=np.generic)
Float64 = npt.NDArray[np.float64]

MAX_BIAS: Final = 1 << 30
"""Leaves as much of int32 to Σ q_x·q_w: 255·64 per input, so 65 000 inputs; the widest network has 18 432."""
MIN_CONSTANT: Final = 2.0**-40
"""Constants of dead channels below this are 0."""
MIN_UNIT: Final = float(np.finfo(np.float32).tiny)


def fold_float(graph: Graph[Latent]) -> Graph[FoldedFloat]:
    """Case 1: every layer as float weights and a bias.

    Raises:
        ExportError: a folded value leaves float32.
    """

    def change(layer: Layer, node: Latent) -> FoldedFloat:
        gain_O, constant_O = _affine(node.norm, node.bias_O)
        with np.errstate(over="ignore"):
            weight_OX = (node.weight_OX * _per_channel(gain_O, node.weight_OX.ndim)).astype(np.float32)
            bias_O = constant_O.astype(np.float32)
        if not (np.isfinite(weight_OX).all() and np.isfinite(bias_O).all()):
            raise ExportError(f"layer {layer.name}: normalisation folded into the weights leaves float32")
        return FoldedFloat(weight_OX, bias_O)

    return graph.map(change)


def fold_integer(graph: Graph[Coded]) -> Graph[FoldedInteger]:
    """Cases 2 to 6: every layer as codes, a scale per channel and an int32 bias.

    Raises:
        ExportError: a scale leaves float32.
    """

    def change(layer: Layer, node: Coded) -> FoldedInteger:
        input_step = graph.input_step(layer)
        bits = graph.precision.bits_of(pinned=layer.pinned)
        folded = _fold(node, float(input_step), dead_code=1 if is_mid_rise(bits) else 0)
        output_step = graph.steps[layer.scale] if layer.scale else np.float32(1)
        _check_scales(layer, multiplier(input_step, folded.scale_O, output_step))
        return folded

    return graph.map(change)


def _fold(node: Coded, input_step: float, *, dead_code: int) -> FoldedInteger:
    """`dead_code` multiplies the codes of dead channels: 0 where the grid has a zero."""
    gain_O, constant_O = _affine(node.norm, node.bias_O)
    with np.errstate(over="ignore", under="ignore"):
        scale_O = (node.step_O * np.abs(gain_O)).astype(np.float32)
    unit_O = input_step * scale_O.astype(np.float64)
    dead_O = (unit_O < MIN_UNIT) | (np.abs(constant_O) > MAX_BIAS * unit_O)
    scale_O = np.where(dead_O, _dead_scale(constant_O, input_step), scale_O)
    sign_O = np.where(dead_O, dead_code, np.where(gain_O < 0, -1, 1)).astype(np.int8)
    codes_OX: Int8 = node.codes_OX * _per_channel(sign_O, node.codes_OX.ndim)
    bias_O = np.rint(constant_O / (input_step * scale_O.astype(np.float64)))
    return FoldedInteger(codes_OX, scale_O, bias_O.astype(np.int32))


def _dead_scale(constant_O: Float64, input_step: float) -> Float32:
    with np.errstate(over="ignore"):  # infinity is refused with the layer's name
        return (np.maximum(np.abs(constant_O), MIN_CONSTANT) / (input_step * MAX_BIAS)).astype(np.float32)


def _affine(norm: Norm | None, bias_O: Float32 | None) -> tuple[Float64, Float64]:
    """Gain and constant after the sum of products, float64[O] each."""
    if norm is None:
        assert bias_O is not None  # the table gives a layer one of the two
        return np.ones(bias_O.shape), bias_O.astype(np.float64)
    gain_O = norm.gamma_O / np.sqrt(norm.variance_O.astype(np.float64) + NORM_EPSILON)
    return gain_O, norm.beta_O - norm.mean_O * gain_O


def _per_channel(values_O: npt.NDArray[T], ndim: int) -> npt.NDArray[T]:
    return values_O.reshape(-1, *(1,) * (ndim - 1))


def _check_scales(layer: Layer, multiplier_O: Float32) -> None:
    bad = np.flatnonzero(~np.isfinite(multiplier_O))
    if bad.size:
        raise ExportError(
            f"layer {layer.name}, channel {bad[0]}: input step · weight scale / output step is"
            f" {multiplier_O[bad[0]]}, expected a finite float32"
        )
