"""The energy model both sides use when nothing is measured: layer table and precision → millijoules.

Arithmetic at 45 nm, 0.9 V: M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014. It
ranks bit-widths; a real board also pays for its idle current and its caches, so figures from here are `modelled` and
never mixed with measured ones.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

from protocol.architecture import Architecture, Kind, Layer
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

    Integer arithmetic scales with the product of its widths, b_w·b_a/64 (ALGORITHMS section 4).
    """
    arithmetic_pj = sum(layer.multiply_adds * _multiply_add_pj(network, layer, precision) for layer in network.layers)
    bits = sum(
        _weight_bits(layer, precision) + 2 * _activation_bits(network, layer, precision) for layer in network.layers
    )
    return InferenceEnergy(arithmetic_pj * _MJ_PER_PJ, bits / 32 * DRAM_WORD_PJ * _MJ_PER_PJ)


def training_energy_mj(network: Architecture, samples: int) -> float:
    """Energy to train on `samples` pictures once, in fp32 arithmetic whatever the precision trained for."""
    per_picture_pj = TRAINING_PASSES * network.multiply_adds * FP32_MULTIPLY_ADD_PJ
    return samples * per_picture_pj * _MJ_PER_PJ


def model_bytes(network: Architecture, precision: Precision) -> int:
    """Bytes of the weights alone, each at its true width."""
    return -(-sum(_weight_bits(layer, precision) for layer in network.layers) // 8)


def _multiply_add_pj(network: Architecture, layer: Layer, precision: Precision) -> float:
    if precision.is_float or layer.weight_shape is None:
        return FP32_MULTIPLY_ADD_PJ
    inputs = network.activation_bits(network.scale_of(layer.inputs[0]), precision)
    return INT8_MULTIPLY_ADD_PJ * precision.bits_of(pinned=layer.pinned) * inputs / 64


def _weight_bits(layer: Layer, precision: Precision) -> int:
    shape = layer.weight_shape
    return 0 if shape is None else prod(shape) * precision.bits_of(pinned=layer.pinned)


def _activation_bits(network: Architecture, layer: Layer, precision: Precision) -> int:
    bits = 32 if layer.kind is Kind.LINEAR else network.activation_bits(layer.scale, precision)
    return prod(layer.out_shape) * bits
