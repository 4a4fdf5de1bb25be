"""Pass: store every weight integer at its true width, decoded by plain operators when the model is loaded.

    4 bits     an INT4 initializer and a Cast to int8, if the grid fits it
    1, 2 bits  bytes of 8 or 4 codes, and a table from each byte to its int8 values:
               Gather(int8[256, codes per byte], Cast(bytes)) and Reshape
    3, 5–7     planes of 4, 2 and 1 bits, each through its own table, added

The table holds the grid, so any works: nested codes (−15, −13 … 15 at 4 bits) pass through it too. Where codes do not
fill whole bytes, a Slice drops what the last byte has too many. ONNX Runtime folds the constant
nodes when it makes the session: what runs is the plain int8 graph, and only the file is smaller. DequantizeLinear
of INT4 straight into a Conv would run at half the speed of fp32 and is never written.
"""

from itertools import accumulate
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from export.grids import Grid, grid_of
from protocol.architecture import Architecture
from protocol.codec import bitpack
from protocol.precision import Int8, Precision, UInt8

PLANES: Final = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}
"""Widths of the planes of a code, lowest bits first; each divides a byte."""
MAX_INT4: Final = 7


def pack_weights(model: ModelProto, architecture: Architecture, precision: Precision) -> ModelProto:
    """The model with the weights of every layer below 8 bits packed.

    Raises:
        ExportError: a weight is not int8 of its width's grid.
    """
    packed = ModelProto()
    packed.CopyFrom(model)
    packer = _Packer(packed)
    for layer in architecture.layers:
        of_bits = f"{layer.name}.threshold" in packer.constants  # a binary convolution has packed its own
        if layer.weight_shape is not None and precision.bits_of(pinned=layer.pinned) < 8 and not of_bits:
            packer.pack(f"{layer.name}.weight", grid_of(architecture, layer, precision))
    packer.finish()
    return packed


class _Packer:
    """Swaps initializers of one graph for packed ones and collects the nodes that decode them."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {item.name: item for item in model.graph.initializer}
        self.nodes: list[NodeProto] = []

    def pack(self, name: str, grid: Grid) -> None:
        codes_OX = numpy_helper.to_array(self.constants.pop(name))
        if codes_OX.dtype != np.int8 or not grid.holds(codes_OX):
            raise ExportError(f"{name}: expected int8 codes of {grid.bits} bits")
        if grid.bits == 4 and grid.largest <= MAX_INT4:
            self._pack_int4(name, codes_OX)
        else:
            self._pack_planes(name, codes_OX, grid)

    def finish(self) -> None:
        """Decoding nodes go first: ONNX wants nodes in the order of use."""
        nodes = [*self.nodes, *self.graph.node]
        del self.graph.node[:]
        del self.graph.initializer[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend(self.constants.values())

    def _pack_int4(self, name: str, codes_OX: Int8) -> None:
        nibbles = bitpack.pack((codes_OX.reshape(-1) & 0xF).astype(np.uint8), 4)
        stored = f"{name}/int4"
        self.constants[stored] = helper.make_tensor(stored, TensorProto.INT4, codes_OX.shape, nibbles, raw=True)
        self._node("Cast", [stored], name, to=TensorProto.INT8)

    def _pack_planes(self, name: str, codes_OX: Int8, grid: Grid) -> None:
        index_N, widths = grid.index(codes_OX.reshape(-1)), PLANES[grid.bits]
        shape = self._constant(f"shape/{'x'.join(map(str, codes_OX.shape))}", np.array(codes_OX.shape, np.int64))
        shifts = list(accumulate(widths, initial=0))[:-1]
        planes = [
            self._plane(f"{name}/{shift}", index_N >> np.uint8(shift), width, self._table(grid, shift, width), shape)
            for shift, width in zip(shifts, widths, strict=True)
        ]
        total = planes[0]
        for number, plane in enumerate(planes[1:]):
            total = self._node("Add", [total, plane], f"{name}/sum{number}")
        self.nodes[-1].output[0] = name  # whoever reads the weight reads the last of these nodes

    def _plane(self, name: str, index_N: UInt8, width: int, table: str, shape: str) -> str:
        """Store the lowest `width` bits of every index and decode them to int8 of the weight's shape."""
        digits_N = index_N & np.uint8((1 << width) - 1)
        stored = self._constant(f"{name}/bytes", np.frombuffer(bitpack.pack(digits_N, width), np.uint8))
        index = self._node("Cast", [stored], f"{name}/index", to=TensorProto.INT32)
        groups = self._node("Gather", [table, index], f"{name}/groups")
        if index_N.size * width % 8:
            row = self._node("Reshape", [groups, self._constant("shape/row", np.array([-1]))], f"{name}/row")
            ends = [self._constant(f"count/{count}", np.array([count])) for count in (0, index_N.size)]
            groups = self._node("Slice", [row, *ends], f"{name}/whole")
        return self._node("Reshape", [groups, shape], f"{name}/codes")

    def _table(self, grid: Grid, shift: int, width: int) -> str:
        """Byte to int8 values, int8[256, 8 / width]; one table serves all layers of a grid."""
        digits = (np.arange(256)[:, None] >> np.arange(0, 8, width)) & ((1 << width) - 1)
        values = (digits << shift) * grid.spacing
        if shift == 0:  # the lowest plane carries the offset of the whole code
            values = values - grid.largest
        return self._constant(f"table/{grid.bits}bits/plane{shift}", values.astype(np.int8))

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(values, name))
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """These nodes have no names of their own: at small widths names would outweigh the weights."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output
