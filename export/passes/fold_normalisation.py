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
   scale is chosen such that the bias becomes ±`MAX_BIAS`, and codes become 0. Grids without a 0 (1 and 2 bits, nested
   codes below 8) keep the sign of every code: beside such a bias ±1 moves the output by less than a level.
5. g so small that the bias would pass `MAX_BIAS`: dead as well. Its weights would have moved the output by at most
   1/14 of its constant with every input at 255, and by far less than a level with real ones.
6. No normalisation (the classifier, networks with biases): g = 1, and the trained bias is the constant.
7. GroupNorm: its moments are the picture's own, so nothing folds; it stays with the layer.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from export.arithmetic import Int32, multiplier
from export.errors import ExportError
from export.graph import After, BatchNorm, Coded, FoldedFloat, FoldedInteger, Graph, GroupNorm, Latent
from export.grids import Grid, grid_of
from protocol.architecture import NORM_EPSILON, Layer
from protocol.precision import Float32, Int8

N = TypeVar("N")
T = TypeVar("T", bound=np.generic)
Float64 = npt.NDArray[np.float64]

MAX_BIAS: Final = 1 << 30
"""Leaves as much of int32 to Σ q_x·q_w: 255·64 per input, so 65 000 inputs; the widest network has 36 864."""
MIN_CONSTANT: Final = 2.0**-40
"""Constants of dead channels below this are 0."""
MIN_UNIT: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Folding:
    """What folding does to a layer: `effect_O` on the codes (1, −1 for the other sign, 0 dead), scale and bias."""

    effect_O: Int8
    scale_O: Float32
    bias_O: Int32


def fold_float(graph: Graph[Latent]) -> Graph[FoldedFloat]:
    """Cases 1 and 7: every layer as float weights and a bias, or with its GroupNorm.

    Raises:
        ExportError: a folded value leaves float32.
    """

    def change(layer: Layer, node: Latent) -> FoldedFloat:
        gain_O, constant_O = _affine(node.after, len(node.weight_OX))
        with np.errstate(over="ignore"):
            weight_OX = (node.weight_OX * _per_channel(gain_O, node.weight_OX.ndim)).astype(np.float32)
            bias_O = constant_O.astype(np.float32)
        if not (np.isfinite(weight_OX).all() and np.isfinite(bias_O).all()):
            raise ExportError(f"layer {layer.name}: normalisation folded into the weights leaves float32")
        return FoldedFloat(weight_OX, bias_O, group_norm(node.after))

    return graph.map(change)


def fold_integer(graph: Graph[Coded]) -> Graph[FoldedInteger]:
    """Cases 2 to 7: every layer as codes, a scale per channel and an int32 bias, or with its GroupNorm.

    Raises:
        ExportError: a scale leaves float32.
    """

    def change(layer: Layer, node: Coded) -> FoldedInteger:
        grid = grid_of(graph.architecture, layer, graph.precision)
        return apply_folding(node.codes_OX, fold(graph, layer, node), grid, group_norm(node.after))

    return graph.map(change)


def fold(graph: Graph[Coded], layer: Layer, node: Coded) -> Folding:
    """How one layer folds.

    Raises:
        ExportError: a scale leaves float32.
    """
    input_step = graph.coding_in(layer).step
    gain_O, constant_O = _affine(node.after, len(node.codes_OX))
    folding = _fold(node.step_O, gain_O, constant_O, float(input_step))
    if group_norm(node.after) is None:
        check_scales(graph, layer, folding.scale_O)
    return folding


def check_scales(graph: Graph[N], layer: Layer, scale_O: Float32) -> None:
    """Check that M of `export.arithmetic` is a finite float32 in every channel.

    Raises:
        ExportError: it is not.
    """
    output_step = graph.codings[layer.name].step if layer.scale else np.float32(1)
    multiplier_O = multiplier(graph.coding_in(layer).step, scale_O, output_step)
    bad = np.flatnonzero(~np.isfinite(multiplier_O))
    if bad.size:
        raise ExportError(
            f"layer {layer.name}, channel {bad[0]}: input step · weight scale / output step is"
            f" {multiplier_O[bad[0]]}, expected a finite float32"
        )


def apply_folding(codes_OX: Int8, folding: Folding, grid: Grid, norm: GroupNorm | None) -> FoldedInteger:
    """Codes of `grid` as they are after folding."""
    effect = _per_channel(folding.effect_O, codes_OX.ndim)
    dead = np.int8(0) if grid.has_zero else np.sign(codes_OX)
    return FoldedInteger(np.where(effect == 0, dead, codes_OX * effect), folding.scale_O, folding.bias_O, norm)


def group_norm(after: After) -> GroupNorm | None:
    """Case 7: what stays with the layer."""
    return after if isinstance(after, GroupNorm) else None


def _fold(step_O: Float32, gain_O: Float64, constant_O: Float64, input_step: float) -> Folding:
    with np.errstate(over="ignore", under="ignore"):
        scale_O = (step_O * np.abs(gain_O)).astype(np.float32)
    unit_O = input_step * scale_O.astype(np.float64)
    dead_O = (unit_O < MIN_UNIT) | (np.abs(constant_O) > MAX_BIAS * unit_O)
    scale_O = np.where(dead_O, _dead_scale(constant_O, input_step), scale_O)
    effect_O = np.where(dead_O, 0, np.where(gain_O < 0, -1, 1)).astype(np.int8)
    bias_O = np.rint(constant_O / (input_step * scale_O.astype(np.float64)))
    return Folding(effect_O, scale_O, bias_O.astype(np.int32))


def _dead_scale(constant_O: Float64, input_step: float) -> Float32:
    with np.errstate(over="ignore"):  # infinity is refused with the layer's name
        return (np.maximum(np.abs(constant_O), MIN_CONSTANT) / (input_step * MAX_BIAS)).astype(np.float32)


def _affine(after: After, channels: int) -> tuple[Float64, Float64]:
    """Gain and constant after the sum of products, float64[O] each."""
    match after:
        case BatchNorm():
            gain_O = after.gamma_O / np.sqrt(after.variance_O.astype(np.float64) + NORM_EPSILON)
            return gain_O, after.beta_O - after.mean_O * gain_O
        case GroupNorm():
            return np.ones(channels), np.zeros(channels)
        case _:
            return np.ones(channels), after.bias_O.astype(np.float64)


def _per_channel(values_O: npt.NDArray[T], ndim: int) -> npt.NDArray[T]:
    return values_O.reshape(-1, *(1,) * (ndim - 1))
