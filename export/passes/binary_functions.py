"""The operators of `protocol.operators` as ONNX functions of standard operators.

They travel in every model that uses them: a session without our kernels puts them in the operators' place. Activations
are uint8[N, H, W, C]; what is computed is in `protocol/operators/native/binary.h`, word for word.
"""

from typing import Any, Final

import numpy as np
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from export.writer import OPSET
from protocol import operators

CONV_INPUTS: Final = (
    "x",
    "x_scale",
    "threshold",
    "pads",
    "weight",
    "weight_shape",
    "weight_scale",
    "bias",
    "y_scale",
    "y_zero_point",
)
"""uint8[N, H, W, C], float32[], int32[C], int64[8] (what Pad takes for x), uint8[O·C·K·K / 8] (bit 1 is +1, lowest
first), int64[4] (O, C, K, K), float32[O], int32[O], float32[], uint8[]. Shapes are inputs and not attributes, because
ONNX Runtime before 1.25 infers no shape of a constant that a function makes of an attribute."""
RESIDUAL_INPUTS: Final = (*CONV_INPUTS, "shortcut", "slope", "shift_in", "shift_out")
"""Then uint8[N, H', W', O] and float32[O] three times."""
ATTRIBUTES: Final = {
    "strides": AttributeProto.INTS,
    "levels": AttributeProto.INT,
    "low": AttributeProto.INT,
    "high": AttributeProto.INT,
}
"""Twice the stride; 2 for bits of −1 and 1, 1 for 0 and 1; the least and the largest stored output."""

_TO_NCHW: Final = (0, 3, 1, 2)
_TO_NHWC: Final = (0, 2, 3, 1)


class _Body:
    """Collects the nodes of one function."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def node(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Append a node; returns its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))
        return output

    def referring(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **names: str) -> str:
        """The same, its attributes being those of the function that have these names."""
        self.node(operator, inputs, output, domain=domain)
        for name, of in names.items():
            self.nodes[-1].attribute.append(AttributeProto(name=name, ref_attr_name=of, type=ATTRIBUTES[of]))
        return output

    def constant(self, name: str, values: Any) -> str:
        """A value that all uses share."""
        return self.node("Constant", [], name, value=numpy_helper.from_array(np.asarray(values), name))

    def function(self, name: str, inputs: tuple[str, ...]) -> FunctionProto:
        """The function, with one output y."""
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(operators.DOMAIN, operators.VERSION)]
        return helper.make_function(
            operators.DOMAIN, name, list(inputs), ["y"], self.nodes, imports, attributes=list(ATTRIBUTES)
        )


def _binary_conv() -> FunctionProto:
    """Bits of x, convolved, stored again within [low, high]."""
    body = _Body()
    node, constant, referring = body.node, body.constant, body.referring
    zero = constant("zero", np.uint8(0))
    one = _level(body, "levels")
    reached = node("GreaterOrEqual", [node("Cast", ["x"], "values", to=TensorProto.INT32), "threshold"], "reached")
    bits = node("Where", [reached, one, zero], "bits")
    padded = node("Pad", [bits, "pads", zero], "padded")
    planes = node("Transpose", [padded], "planes", perm=_TO_NCHW)
    below = node("Sub", ["levels_wide", constant("unit", np.int64(1))], "levels_less")
    x_zero = node("Cast", [below], "x_zero_point", to=TensorProto.UINT8)
    inputs = [planes, "x_scale", x_zero, _weight(body), "weight_scale", constant("weight_zero", np.int8(0))]
    stored = referring("QLinearConv", [*inputs, "y_scale", "y_zero_point", "bias"], "stored", strides="strides")
    clipped = node("Clip", [stored, _level(body, "low"), _level(body, "high")], "clipped")
    node("Transpose", [clipped], "y", perm=_TO_NHWC)
    return body.function(operators.BINARY_CONV, CONV_INPUTS)


def _binary_residual() -> FunctionProto:
    """The same, plus the shortcut, through a PReLU with shifts; all of one step and zero point."""
    body = _Body()
    node, coding = body.node, ["y_scale", "y_zero_point"]
    conv = body.referring(
        operators.BINARY_CONV,
        list(CONV_INPUTS),
        "conv",
        domain=operators.DOMAIN,
        **{name: name for name in ATTRIBUTES},
    )
    branches = [node("DequantizeLinear", [x, *coding], f"{x}_values") for x in (conv, "shortcut")]
    total = node("QuantizeLinear", [node("Add", branches, "sum"), *coding], "total")
    values = node("DequantizeLinear", [total, *coding], "total_values")
    bent = node("PRelu", [node("Sub", [values, "shift_in"], "shifted"), "slope"], "bent")
    node("QuantizeLinear", [node("Add", [bent, "shift_out"], "result"), *coding], "y")
    return body.function(operators.BINARY_RESIDUAL, RESIDUAL_INPUTS)


def _level(body: _Body, attribute: str) -> str:
    """An attribute as a uint8 scalar; as int64 it is `<attribute>_wide`."""
    wide = body.referring("Constant", [], f"{attribute}_wide", value_int=attribute)
    return body.node("Cast", [wide], f"{attribute}_level", to=TensorProto.UINT8)


def _weight(body: _Body) -> str:
    """Bits as int8[O, C, K, K] of −1 and 1, by looking every byte up."""
    table = np.where((np.arange(256)[:, None] >> np.arange(8)) & 1, 1, -1).astype(np.int8)
    index = body.node("Cast", ["weight"], "weight_index", to=TensorProto.INT32)
    codes = body.node("Gather", [body.constant("table", table), index], "weight_codes")
    return body.node("Reshape", [codes, "weight_shape"], "weight_OCKK")


BINARY_CONV: Final = _binary_conv()
BINARY_RESIDUAL: Final = _binary_residual()
FUNCTIONS: Final = {function.name: function for function in (BINARY_CONV, BINARY_RESIDUAL)}
"""By name: a model may define no other, and none of them otherwise."""
