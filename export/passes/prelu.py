"""PReLU with shifts as plain operators, the same for the float network and between two steps of the integer one."""

from export.graph import Prelu
from export.writer import Writer
from protocol.architecture import Layer


def prelu(writer: Writer, layer: Layer, learned: Prelu, x: str, output: str) -> str:
    """PRelu(x − shift_in, slope) + shift_out in float32, x [N, C, H, W]; returns `output`."""
    shift_in = writer.constant(f"{layer.name}.shift_in", learned.shift_in_C.reshape(-1, 1, 1))
    slope = writer.constant(f"{layer.name}.slope", learned.slope_C.reshape(-1, 1, 1))
    shift_out = writer.constant(f"{layer.name}.shift_out", learned.shift_out_C.reshape(-1, 1, 1))
    shifted = writer.node("Sub", [x, shift_in], f"{layer.name}/shifted")
    bent = writer.node("PRelu", [shifted, slope], f"{layer.name}/bent")
    return writer.node("Add", [bent, shift_out], output)
