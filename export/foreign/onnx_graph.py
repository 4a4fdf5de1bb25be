"""Questions about an ONNX graph: who reads a value, which constant is behind a name, what an attribute says."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from protocol.architecture import Shape

DEFAULTS: Final[dict[str, Any]] = {
    "strides": [1, 1],
    "pads": [0] * 4,
    "dilations": [1, 1],
    "group": 1,
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "alpha": 1.0,
    "beta": 1.0,
    "transA": 0,
}
"""What an attribute is when the file leaves it out."""


class OnnxGraph:
    """A model's main graph. `Identity` nodes are looked through.

    Attributes:
        picture: name of the only input.
        input_shape: (C, H, W) of a picture, None where the file leaves it open.

    Raises:
        ExportError: there are several inputs, or weights lie in another file.
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._same: dict[str, str] = {}
        self._readers: dict[str, list[NodeProto]] = {}
        inputs = [value for value in graph.input if value.name not in self._constants]
        self._known = {*self._constants, *(value.name for value in inputs)}
        for node in graph.node:
            self._register(node)
        if len(inputs) != 1 or len(graph.output) != 1:
            raise ExportError(f"{len(inputs)} inputs and {len(graph.output)} outputs: expected one of each")
        self.picture = str(inputs[0].name)
        self.input_shape = _picture_shape([axis.dim_value for axis in inputs[0].type.tensor_type.shape.dim])
        self._output = self._origin(graph.output[0].name)

    def readers(self, value: str) -> list[NodeProto]:
        """The nodes that read a value, in the file's order."""
        return self._readers.get(value, [])

    def only_reader(self, value: str, *operators: str) -> NodeProto:
        """The one node that reads a value.

        Raises:
            ExportError: there are others, or it has none of these operators.
        """
        found = self.readers(value)
        for node in found:
            if node.op_type not in operators:
                raise self.unexpected(node, " or ".join(operators))
        if len(found) != 1:
            raise ExportError(f"value {value} is read by {len(found)} nodes: expected one {' or '.join(operators)}")
        return found[0]

    def constant(self, node: NodeProto, name: str) -> npt.NDArray[Any]:
        """The numbers of a node's input.

        Raises:
            ExportError: they are computed, or lie in another file.
        """
        tensor = self._constants.get(self._origin(name))
        if tensor is None:
            raise self.unexpected(node, f"a constant {name}")
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ExportError(f"tensor {name} lies in another file: expected all weights in this one")
        try:
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise ExportError(f"tensor {name} is damaged: {error}") from error

    def inputs(self, node: NodeProto) -> set[str]:
        """The values a node reads."""
        return set(map(self._origin, node.input))

    def attribute(self, node: NodeProto, name: str, default: Any) -> Any:
        """What an attribute says, as numbers and text of Python."""
        found = next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
        return found.decode(errors="replace") if isinstance(found, bytes) else found

    def check(self, node: NodeProto, expected: Mapping[str, Any]) -> None:
        """Hold a node to its attributes.

        Raises:
            ExportError: one differs.
        """
        for name, value in expected.items():
            found = self.attribute(node, name, DEFAULTS.get(name))
            if found != value:
                raise self.unexpected(node, f"{name} = {value}, not {found}")

    def require_output(self, value: str) -> None:
        """Check that a value is the model's output.

        Raises:
            ExportError: something follows it.
        """
        for node in self.readers(value):
            raise self.unexpected(node, "nothing behind the classifier")
        if value != self._output:
            raise ExportError(f"the output is {self._output}: expected the classifier's, {value}")

    def unexpected(self, node: NodeProto, expected: str) -> ExportError:
        """What to raise about a node; its operator and name are in the message."""
        return ExportError(
            f"unsupported layer: node {node.name or node.output[0]} is {node.op_type}: expected {expected}"
        )

    def _register(self, node: NodeProto) -> None:
        if (
            not node.output
            or self._known.intersection(node.output)
            or not self._known.issuperset(filter(None, node.input))
        ):
            raise ExportError(f"node {node.name} is {node.op_type}: expected nodes in the order of computation")
        self._known.update(node.output)
        if node.op_type == "Identity" and len(node.input) == 1:
            self._same[node.output[0]] = self._origin(node.input[0])
            return
        if node.op_type == "Constant":
            value = self.attribute(node, "value", None)
            if isinstance(value, TensorProto):
                self._constants[node.output[0]] = value
            return
        for name in dict.fromkeys(map(self._origin, node.input)):
            self._readers.setdefault(name, []).append(node)

    def _origin(self, name: str) -> str:
        """Nodes come in the order of computation, so one look is enough."""
        return self._same.get(name, name)


def _picture_shape(axes: list[int]) -> Shape | None:
    return tuple(axes[1:]) if len(axes) == 4 and all(edge > 0 for edge in axes[1:]) else None
