"""Sums of products of a convolution as they are, for what cannot fold into a requantization.

ONNX Runtime has no fast kernel for ConvInteger: on x86 it takes more than twice as long as a float Conv. So wherever
every partial sum stays below 2^24, a float32 Conv of integers gives the same numbers in any order of addition; beyond
(8-bit weights of many channels) ConvInteger does.
"""

import numpy as np
from onnx import TensorProto

from export.arithmetic import MAX_STORED, Coding
from export.graph import FoldedInteger
from export.passes.window import grouped_window
from export.writer import Writer
from protocol.architecture import Layer

EXACT_IN_FLOAT32 = 1 << 24


def largest_sum(node: FoldedInteger) -> int:
    """No sum of stored activations times codes goes beyond it."""
    rows_OX = np.abs(node.codes_OX.reshape(len(node.codes_OX), -1).astype(np.int64))
    return MAX_STORED * int(rows_OX.sum(axis=1).max())


def exact_sums(writer: Writer, layer: Layer, node: FoldedInteger, x: str, coding: Coding, padding: int) -> str:
    """Σ (q_x − z_x)·q_w as double [N, O, H, W]; x is stored as `coding` says."""
    weight, window = writer.constant(f"{layer.name}.weight", node.codes_OX), grouped_window(layer, padding=padding)
    zero = writer.constant(f"zero_point_{coding.zero}", np.uint8(coding.zero))
    if largest_sum(node) < EXACT_IN_FLOAT32:
        unit = writer.constant("unit_step", np.float32(1))
        centred = writer.node("DequantizeLinear", [x, unit, zero], f"{layer.name}/centred_input")
        codes = writer.node("Cast", [weight], f"{layer.name}/codes", to=TensorProto.FLOAT)
        products = writer.node("Conv", [centred, codes], f"{layer.name}/products", **window)
    else:
        weight_zero = writer.constant("weight_zero", np.int8(0))
        products = writer.node("ConvInteger", [x, weight, zero, weight_zero], f"{layer.name}/products", **window)
    return writer.node("Cast", [products], f"{layer.name}/double", to=TensorProto.DOUBLE)
