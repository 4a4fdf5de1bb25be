"""Model files as strangers and accidents make them."""

import numpy as np
import onnx
from edge_support import SPEC
from onnx import TensorProto, helper


def constant_model(logits: list[float], shape: list[int | str], pictures: int = 2) -> bytes:
    """Gives the same logits for every picture, and always for as many `pictures`."""
    values = helper.make_tensor("c", TensorProto.FLOAT, [pictures, len(logits)], logits * pictures)
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["logits"], value=values)],
        "constant",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [pictures, len(logits)])],
    )
    data = _serialized(graph)
    onnx.checker.check_model(data)
    return data


def linear_model(
    hidden: int = 16,
    *,
    takes: str = "pictures",
    gives: str = "logits",
    opset: int = 21,
    input_type: int = TensorProto.UINT8,
    weight: str = "MatMul",
    domain: str = "",
) -> bytes:
    """Two matrices of zeros after one another, 4 kB for every hidden unit; every part of it may be a wrong one."""
    matrices = [np.zeros((1024, hidden), np.float32), np.zeros((hidden, 10), np.float32)]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [takes], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["values"], ["flat"]),
            helper.make_node(weight, ["flat", "first"], ["between"], domain=domain),
            helper.make_node("MatMul", ["between", "second"], [gives]),
        ],
        "linear",
        [helper.make_tensor_value_info(takes, input_type, ["N", 1, 32, 32])],
        [helper.make_tensor_value_info(gives, TensorProto.FLOAT, ["N", 10])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, matrix.shape, matrix.tobytes(), raw=True)
            for name, matrix in zip(("first", "second"), matrices, strict=True)
        ],
    )
    return _serialized(graph, opset, domain)


def half_precision_model() -> bytes:
    """Standard ONNX, of a type that ONNX Runtime has no kernel for on processors."""
    weight_OIHW = np.zeros((10, 1, 32, 32), np.float16)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pictures"], ["values"], to=TensorProto.BFLOAT16),
            helper.make_node("Cast", ["weight"], ["narrow"], to=TensorProto.BFLOAT16),
            helper.make_node("Conv", ["values", "narrow"], ["sums"]),
            helper.make_node("Flatten", ["sums"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["logits"], to=TensorProto.FLOAT),
        ],
        "half",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["N", 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor("weight", TensorProto.FLOAT16, weight_OIHW.shape, weight_OIHW.tobytes(), raw=True)],
    )
    return _serialized(graph, 22)


def _serialized(graph: onnx.GraphProto, opset: int = 21, domain: str = "") -> bytes:
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {"bitfleet.architecture": SPEC, "bitfleet.precision": "fp32"})
    data: bytes = model.SerializeToString()
    return data
