"""GroupNorm as plain operators, in float for the float network and in double for the integer one.

The integer network takes exact int32 sums, times s_x·s_w in float64. Two libraries add float64 numbers in different
orders and differ by some 1e−15 of a value; that moves a stored level only if the value lies that close to the middle
between two levels, which hardly one in 10^12 does. Should it ever happen, `export.check` refuses the model.
"""

import numpy as np
from onnx import TensorProto

from export.graph import GroupNorm
from export.writer import Writer
from protocol.architecture import NORM_EPSILON, Layer


def group_norm(writer: Writer, layer: Layer, norm: GroupNorm, x: str, output: str, *, kind: int) -> str:
    """γ·(x − μ)/√(σ² + ε) + β with each picture's own moments over groups of channels.

    Args:
        writer: gets the nodes.
        layer: names them.
        norm: gains, offsets and the number of groups.
        x: value [N, C, H, W].
        output: name of the result, of the same shape.
        kind: `TensorProto.FLOAT` or `TensorProto.DOUBLE`, the type of x.
    """
    dtype = np.float64 if kind == TensorProto.DOUBLE else np.float32

    def node(operator: str, inputs: list[str], name: str) -> str:
        return writer.node(operator, inputs, f"{layer.name}/{name}")

    groups = writer.constant(f"groups_{norm.groups}", np.array([0, norm.groups, -1], np.int64))
    planes = writer.constant(f"{layer.name}.shape", np.array([0, *layer.out_shape], np.int64))
    axis = writer.constant("group_axis", np.array([2], np.int64))
    epsilon = writer.constant("norm_epsilon", np.asarray(NORM_EPSILON, dtype))
    gamma = writer.constant(f"{layer.name}.gamma", norm.gamma_O.astype(dtype).reshape(-1, 1, 1))
    beta = writer.constant(f"{layer.name}.beta", norm.beta_O.astype(dtype).reshape(-1, 1, 1))

    grouped = node("Reshape", [x, groups], "grouped")
    centred = node("Sub", [grouped, node("ReduceMean", [grouped, axis], "mean")], "centred")
    variance = node("ReduceMean", [node("Mul", [centred, centred], "squares"), axis], "variance")
    deviation = node("Sqrt", [node("Add", [variance, epsilon], "positive")], "deviation")
    normal = node("Reshape", [node("Div", [centred, deviation], "normal"), planes], "planes")
    return writer.node("Add", [node("Mul", [normal, gamma], "scaled"), beta], output)
