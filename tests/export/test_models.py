"""Exported files against the reference, at every precision, on real pictures; and what the runtime makes of them."""

from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from export import ort
from export.passes import integer_numbers, to_onnx
from export.passes.integer_arithmetic import integer_arithmetic
from export.passes.pack_weights import pack_weights
from export.reference import FloatNetwork, IntegerNetwork
from export.writer import LOGITS, OPSET, serialize
from protocol.architecture import Architecture, Tensors
from protocol.networks import resnet18
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Pictures = npt.NDArray[np.uint8]
Digits = tuple[Pictures, npt.NDArray[np.int64]]

INTEGER = [Precision(bits, 8) for bits in range(8, 0, -1)]
STEMS = ["3x3", "7x7"]
PACKED = [precision for precision in INTEGER if precision.weight_bits < 8]


def network(stem: str) -> Architecture:
    return resnet18(width=0.0625, stem=stem, input_shape=(1, 32, 32))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("precision", INTEGER, ids=str)
def test_an_integer_model_equals_the_reference_in_every_bit(
    stem: str, precision: Precision, make_tensors: MakeTensors, digits: Digits
) -> None:
    architecture = network(stem)
    tensors = make_tensors(architecture, precision)
    session = ort.session(serialize(to_onnx(architecture, precision, tensors)))
    expected = IntegerNetwork(architecture, precision, tensors).logits(digits[0][:60])
    for batch in (1, 5):
        parts = [ort.run(session, digits[0][start : start + batch], [LOGITS])[0] for start in range(0, 60, batch)]
        assert np.array_equal(np.concatenate(parts).view(np.int32), expected.view(np.int32))
    assert expected.std(axis=0).min() > 0  # the pictures do reach the logits


@pytest.mark.parametrize("stem", STEMS)
def test_a_float_model_agrees_within_a_tolerance_and_on_every_class(
    stem: str, make_tensors: MakeTensors, digits: Digits
) -> None:
    architecture = network(stem)
    tensors = make_tensors(architecture, FP32)
    session = ort.session(serialize(to_onnx(architecture, FP32, tensors)))
    expected = FloatNetwork(architecture, tensors).logits(digits[0][:60])
    found = ort.run(session, digits[0][:60], [LOGITS])[0]
    assert np.allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("precision", [Precision(8, 8), Precision(2, 8)], ids=str)
def test_the_bits_do_not_depend_on_the_runtimes_optimizations(
    precision: Precision, small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    """Unfused, the residual add runs in float: the same integers come out."""
    tensors = make_tensors(small, precision)
    options = ort.onnxruntime.SessionOptions()
    options.graph_optimization_level = ort.onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = serialize(to_onnx(small, precision, tensors))
    plain = ort.onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = ort.run(plain, digits[0][:20], [LOGITS])[0]
    assert np.array_equal(found, IntegerNetwork(small, precision, tensors).logits(digits[0][:20]))


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("precision", INTEGER, ids=str)
def test_after_loading_every_width_is_the_plain_int8_graph(
    stem: str, precision: Precision, make_tensors: MakeTensors, tmp_path: Path
) -> None:
    architecture = network(stem)
    model = serialize(to_onnx(architecture, precision, make_tensors(architecture, precision)))
    ort.session(model, optimized_path=str(tmp_path / "optimized.onnx"))
    loaded = onnx.load(tmp_path / "optimized.onnx")
    operators = Counter(node.op_type for node in loaded.graph.node)
    expected = {"QLinearConv": 20, "QLinearAdd": 8, "MatMulInteger": 1, "ReduceSum": 1, "QuantizeLinear": 1}
    expected |= {"Cast": 2, "Mul": 2, "Add": 1, "Transpose": operators["Transpose"]}
    if stem == "7x7":
        expected["NhwcMaxPool"] = 1
    assert operators == expected
    assert operators["Transpose"] <= 2
    constants = {item.name: item for item in loaded.graph.initializer}
    convolutions = [node for node in loaded.graph.node if node.op_type == "QLinearConv"]
    assert all(constants[node.input[3]].data_type == TensorProto.INT8 for node in convolutions)


@pytest.mark.parametrize("precision", PACKED, ids=str)
def test_packed_weights_unpack_to_the_codes_and_take_their_true_width(
    precision: Precision, small: Architecture, make_tensors: MakeTensors, tmp_path: Path
) -> None:
    graph = integer_numbers(small, precision, make_tensors(small, precision))
    packed = pack_weights(integer_arithmetic(graph), small, precision)
    name = "layer2.1.conv1.weight"
    stored = [item for item in packed.graph.initializer if item.name.startswith(name) and "scale" not in item.name]
    assert sum(len(item.raw_data) for item in stored) * 8 == graph.nodes["layer2.1.conv1"].codes_OX.size * (
        precision.weight_bits
    )
    ort.session(serialize(packed), optimized_path=str(tmp_path / "optimized.onnx"))
    unpacked = {item.name: item for item in onnx.load(tmp_path / "optimized.onnx").graph.initializer}[name]
    assert np.array_equal(numpy_helper.to_array(unpacked), graph.nodes["layer2.1.conv1"].codes_OX)


@pytest.mark.parametrize("precision", [FP32, *INTEGER], ids=str)
def test_a_model_uses_plain_operators_only(
    precision: Precision, small: Architecture, make_tensors: MakeTensors
) -> None:
    model = to_onnx(small, precision, make_tensors(small, precision))
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize("precision", [FP32, *INTEGER], ids=str)
def test_file_size_follows_the_width(precision: Precision, make_tensors: MakeTensors) -> None:
    """What is not weights (nodes, names, scales, biases, tables) stays below 50 kB: 3 % of W1A8 at full width."""
    architecture = resnet18(width=0.25, input_shape=(1, 32, 32))
    size = len(serialize(to_onnx(architecture, precision, make_tensors(architecture, precision))))
    shapes = ((layer.weight_shape, layer.pinned) for layer in architecture.layers)
    weight_bits = sum(prod(shape) * precision.bits_of(pinned=pinned) for shape, pinned in shapes if shape)
    assert weight_bits / 8 < size < weight_bits / 8 + 50_000


def test_the_same_tensors_give_the_same_bytes(small: Architecture, make_tensors: MakeTensors) -> None:
    precision = Precision(1, 8)
    first, second = (serialize(to_onnx(small, precision, make_tensors(small, precision))) for _ in range(2))
    assert first == second
