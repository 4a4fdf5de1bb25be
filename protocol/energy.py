"""The energy model both sides use when nothing is measured: layer table and precision → millijoules.

Arithmetic at 45 nm, 0.9 V: M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014. It
ranks bit-widths; a real board also pays for its idle current and its caches, so figures from here are `modelled` and
never mixed with measured ones.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

from protocol.architecture import Architecture, Layer
from protocol.precision import Precision

FP32_MULTIPLY_ADD_PJ: Final = 3.7 + 0.9
INT8_MULTIPLY_ADD_PJ: Final = 0.2 + 0.03
DRAM_WORD_PJ: Final = 640.0
"""One 32-bit word from or to DRAM."""
TRAINING_PASSES: Final = 3.0
"""Forward, gradient of activations, gradient of weights: three times the multiply-adds of one inference."""

MJ_PER_J: Final = 1000.0
_MJ_PER_PJ: Final = 1e-9


@dataclass(frozen=True, slots=True)
class InferenceEnergy:
    """Modelled energy of one inference of one picture, in millijoules."""

    arithmetic_mj: float
    memory_mj: float

    @property
    def total_mj(self) -> float:
        """Arithmetic and memory together."""
        return self.arithmetic_mj + self.memory_mj


def inference_energy(network: Architecture, precision: Precision) -> InferenceEnergy:
    """Energy of one inference: every multiply-add, every weight read once, every activation written and read.

    Integer arithmetic scales with the product of its widths, b_w·b_a/64 (ALGORITHMS section 4); weights alone at a
    width leave the arithmetic float. Only rows that compute something at `precision` count.
    """
    rows = network.at(precision)
    arithmetic_pj = sum(layer.multiply_adds * _multiply_add_pj(rows, layer, precision) for layer in rows.layers)
    bits = sum(_weight_bits(layer, precision) + 2 * _activation_bits(rows, layer, precision) for layer in rows.layers)
    return InferenceEnergy(arithmetic_pj * _MJ_PER_PJ, bits / 32 * DRAM_WORD_PJ * _MJ_PER_PJ)


def bops(network: Architecture, precision: Precision) -> int:
    """Bit operations of one inference: multiply-adds × bits of a weight × bits of the activation it meets.

    As counted by C. Baskin et al., "UNIQ", ACM TOCS 2021, arXiv 1804.10969, without the accumulator's share; fp32 is
    32·32 per multiply-add. A convolution of a ResNet18 at W4A4 counts 4·4, its shortcuts and what reads a picture or a
    wide activation more.
    """
    rows = network.at(precision)
    return sum(layer_bops(rows, layer, precision) for layer in rows.layers)


def layer_bops(rows: Architecture, layer: Layer, precision: Precision) -> int:
    """The same of one row of `network.at(precision)`."""
    return layer.multiply_adds * precision.bits_of(pinned=layer.pinned) * _input_bits(rows, layer, precision)


def training_energy_mj(network: Architecture, samples: int) -> float:
    """Energy to train on `samples` pictures once, in fp32 arithmetic whatever the precision trained for."""
    per_picture_pj = TRAINING_PASSES * network.multiply_adds * FP32_MULTIPLY_ADD_PJ
    return samples * per_picture_pj * _MJ_PER_PJ


def model_bytes(network: Architecture, precision: Precision) -> int:
    """Bytes of the weights alone, each at its true width."""
    return -(-sum(_weight_bits(layer, precision) for layer in network.layers) // 8)


def _multiply_add_pj(rows: Architecture, layer: Layer, precision: Precision) -> float:
    if precision.activation_bits > 8:
        return FP32_MULTIPLY_ADD_PJ
    widths = precision.bits_of(pinned=layer.pinned) * _input_bits(rows, layer, precision)
    return INT8_MULTIPLY_ADD_PJ * widths / 64


def _input_bits(rows: Architecture, layer: Layer, precision: Precision) -> int:
    return rows.activation_bits(rows.scale_of(layer.inputs[0]), precision)


def _weight_bits(layer: Layer, precision: Precision) -> int:
    shape = layer.weight_shape
    return 0 if shape is None else prod(shape) * precision.bits_of(pinned=layer.pinned)


def _activation_bits(rows: Architecture, layer: Layer, precision: Precision) -> int:
    """Of everything a row writes; logits are floats."""
    return prod(layer.out_shape) * (rows.activation_bits(layer.scale, precision) if layer.scale else 32)
