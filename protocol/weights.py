"""From trained tensors to weight integers: the one definition that trainer, exporter and reference share.

    latent ── standardized (networks with GroupNorm) ── codes on the grid of the width, times a step per channel

**Own grids.** Each width has its own step s_b: `protocol.precision.quantize_weight`; at 1 bit s_1 = mean|w|.

**Nested codes.** One 8-bit code serves every width (P. Nair et al., "Matryoshka Quantization", ICML 2025,
arXiv 2502.06786, for language models). With the code's step s and c = clip(⌊w/s⌉, −64, 64), the b-bit code is made of
the leading b bits of the 7 bits that c + 64 has (65 levels a side round down to 64):

    k = min(c + 64, 127) ≫ (7 − b)        q_b = 2k + 1 − 2^b        v̂_b = r_b · s · 2^(6−b) · q_b        1 ≤ b ≤ 6
    v̂_8 = s · c

r_b is learned per width and channel and starts at 1. There is no 7: odd codes up to ±127 would leave [−64, 64].
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from protocol.architecture import Architecture, Layer, Role, Tensors
from protocol.errors import Unsupported
from protocol.precision import (
    MAX_WEIGHT_CODE,
    Float32,
    Int8,
    Precision,
    binary_step,
    quantize_weight,
    step_of,
)

NESTED_BITS: Final = (1, 2, 3, 4, 5, 6, 8)
STANDARD_EPSILON: Final = 1e-10
"""Added to the sum of squares of a filter, so that one of zeros stays zero."""


@dataclass(frozen=True, slots=True)
class CodedWeight:
    """Weight integers int8[O, …], what one unit is worth float32[O], and the width they are coded at."""

    codes_OX: Int8
    step_O: Float32
    bits: int


def coded_weight(network: Architecture, layer: Layer, precision: Precision, tensors: Tensors) -> CodedWeight:
    """The weight of a layer as integers.

    Args:
        network: the layer's table.
        layer: a row with weights.
        precision: 1 to 8 weight bits.
        tensors: those of `network.tensors(precision)`.

    Raises:
        Unsupported: nested codes have no such width.
    """
    bits = precision.bits_of(pinned=layer.pinned)
    weight_OX = latent_weight(network, layer, tensors)
    if network.nested:
        return _nested_weight(layer, bits, weight_OX, tensors)
    step_O = binary_step(weight_OX) if bits == 1 else step_of(tensors[f"{layer.name}.{Role.WEIGHT_LOG_STEP}"])
    return CodedWeight(quantize_weight(weight_OX, step_O, bits), step_O, bits)


def latent_weight(network: Architecture, layer: Layer, tensors: Tensors) -> Float32:
    """The float32 weight that is quantized: as trained, or standardized."""
    weight_OX = tensors[f"{layer.name}.{Role.WEIGHT}"]
    return standardized(weight_OX) if network.standardizes(layer) else weight_OX


def standardized(weight_OX: Float32) -> Float32:
    """Each filter shifted to mean 0 and scaled to Euclidean norm 1; sums in float64 (arXiv 1903.10520)."""
    rows_OX = weight_OX.reshape(len(weight_OX), -1).astype(np.float64)
    rows_OX = rows_OX - rows_OX.mean(axis=1, keepdims=True)
    norm_O1 = np.sqrt((rows_OX**2).sum(axis=1, keepdims=True) + STANDARD_EPSILON)
    return (rows_OX / norm_O1).astype(np.float32).reshape(weight_OX.shape)


def leading_bits(codes_OX: Int8, bits: int) -> Int8:
    """The b-bit codes (odd, ±(2^b − 1)) inside 8-bit codes in [−64, 64]; at 8 bits the codes themselves.

    Raises:
        Unsupported: nested codes have no such width.
    """
    require_nested(bits)
    if bits == 8:
        return codes_OX
    k = np.minimum(codes_OX.astype(np.int16) + MAX_WEIGHT_CODE, 2 * MAX_WEIGHT_CODE - 1) >> (7 - bits)
    return (2 * k + 1 - (1 << bits)).astype(np.int8)


def require_nested(bits: int) -> None:
    """Check that nested codes have a width.

    Raises:
        Unsupported: they do not.
    """
    if bits not in NESTED_BITS:
        raise Unsupported(f"nested codes of {bits} bits: expected one of {NESTED_BITS}")


def nested_unit(code_step_O: Float32, log_scale_O: Float32, bits: int) -> Float32:
    """What one unit of a b-bit nested code is worth below 8 bits: r_b · s · 2^(6−b), float32[O]."""
    return ((step_of(log_scale_O) * code_step_O) * np.float32(2.0 ** (6 - bits))).astype(np.float32)


def _nested_weight(layer: Layer, bits: int, weight_OX: Float32, tensors: Tensors) -> CodedWeight:
    code_step_O = step_of(tensors[f"{layer.name}.{Role.CODE_LOG_STEP}"])
    codes_OX = leading_bits(quantize_weight(weight_OX, code_step_O, 8), bits)
    if bits == 8:
        return CodedWeight(codes_OX, code_step_O, bits)
    return CodedWeight(codes_OX, nested_unit(code_step_O, tensors[f"{layer.name}.{Role.WIDTH_LOG_SCALE}"], bits), bits)
