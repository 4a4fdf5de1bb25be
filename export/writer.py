"""Collects nodes and constants and closes them into an ONNX model: the only place that chooses versions."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from export.errors import ExportError
from protocol import operators
from protocol.architecture import INPUT, Architecture

OPSET: Final = 21
"""The first with INT4."""
RUNTIME: Final = "1.20"
"""The first ONNX Runtime that loads it."""
IR_VERSION: Final = 10
"""The file format that came with opset 21."""

PICTURES: Final = "pictures"
LOGITS: Final = "logits"
BATCH: Final = "N"


class Writer:
    """Nodes in order and constants by name. Every layer's output value carries the layer's name."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._functions: dict[str, FunctionProto] = {}
        self._known: list[ValueInfoProto] = []

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        """Store a constant once; returns its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node with one output, named like it; returns the output's name."""
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def call(self, function: FunctionProto, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node that is a function, which the model will hold."""
        self.define(function)
        return self.node(function.name, inputs, output, domain=function.domain, **attributes)

    def define(self, function: FunctionProto) -> None:
        """Let the model hold a function; once is enough."""
        self._functions.setdefault(function.name, function)

    def declare(self, name: str, shape: Sequence[int]) -> str:
        """Say that a value is uint8[N, …shape]: no runtime infers that of an operator of ours. Returns its name."""
        self._known.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [BATCH, *shape]))
        return name

    def model(self, architecture: Architecture) -> ModelProto:
        """The finished model, from uint8 pictures [N, C, H, W] to float32 logits [N, classes]."""
        pictures = helper.make_tensor_value_info(PICTURES, TensorProto.UINT8, [BATCH, *architecture.input_shape])
        logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [BATCH, architecture.classes])
        constants = list(self._constants.values())
        graph = helper.make_graph(
            self._nodes, "bitfleet", [pictures], [logits], constants, value_info=self._known or None
        )
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid(operators.DOMAIN, operators.VERSION)] if self._functions else []
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=IR_VERSION,
            producer_name="bitfleet",
            functions=list(self._functions.values()),
        )


def value_name(architecture: Architecture, layer: str) -> str:
    """Name in the graph of a layer's output: its own, except at the two ends."""
    if layer == INPUT:
        return PICTURES
    return LOGITS if layer == architecture.layers[-1].name else layer


def serialize(model: ModelProto) -> bytes:
    """The file's bytes; the same model always gives the same ones."""
    return model.SerializeToString(deterministic=True)


def parse(data: bytes) -> ModelProto:
    """The model in a file's bytes.

    Raises:
        ExportError: they hold none.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ExportError(f"{len(data)} bytes are no ONNX file, or a truncated one: {error}") from error
    if not model.HasField("graph"):
        raise ExportError(f"{len(data)} bytes are no ONNX file: they hold no graph")
    return model


def check_valid(model: ModelProto) -> None:
    """Run onnx's own checker, shape inference included.

    Raises:
        ExportError: it finds a fault.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    except ValueError as error:  # an unknown type number, or a damaged name that the checker cannot quote as text
        raise ExportError(f"not a valid ONNX model: {str(error)[:200]!r}") from error
