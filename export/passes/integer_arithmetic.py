"""Pass: the folded integer network as plain ONNX operators that ONNX Runtime turns into exact, fast arithmetic.

Per kind of layer, what is written and what the runtime makes of it:

    conv       QLinearConv (u8 × s8, per channel)                           the same, in NHWC
    maxpool    MaxPool on uint8                                             NhwcMaxPool
    add        DequantizeLinear twice, Add, QuantizeLinear, all of one step QLinearAdd
    avgpool    Cast, ReduceSum, Mul, QuantizeLinear of step 1               the same
    linear     MatMulInteger, Add int32, Cast, Mul, (QuantizeLinear)        the same
    of bits    BinaryConv, BinaryResidual (`export.passes.binary`)          our kernel, or the standard operators
                                                                            that the file defines them by
    recode     DequantizeLinear, QuantizeLinear; at 1 bit signed a          the same
               comparison with the channel's threshold
    prelu      DequantizeLinear, Sub, PRelu, Add, QuantizeLinear            the same

There is no QLinearAdd in ai.onnx. Its float spelling is exact wherever it runs unfused too: the sum of two 8-bit
integers times one step, divided by that step, is off by less than a thousandth of a level.
A ReLU needs no operator: storing an unsigned activation clips at 0. Below 8 activation bits a Clip on uint8 follows,
which costs no time. A convolution with GroupNorm is `exact_sums` and `group_norm` in double: it does not fuse.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from export.arithmetic import Coding, multiplier, pixels, pool_multiplier
from export.graph import FoldedInteger, Graph, GroupNorm
from export.passes import binary
from export.passes.binary_functions import BINARY_CONV, BINARY_RESIDUAL
from export.passes.exact_sums import exact_sums
from export.passes.group_norm import group_norm
from export.passes.prelu import prelu
from export.passes.window import flat, grouped_window, window
from export.writer import Writer, value_name
from protocol.architecture import Kind, Layer
from protocol.codec import bitpack


def integer_arithmetic(graph: Graph[FoldedInteger]) -> ModelProto:
    """Integer operators from the uint8 picture to the classifier's sums; only its logits are float."""
    emitter = _Emitter(graph)
    for layer in graph.architecture.layers:
        emitter.emit(layer)
    return emitter.writer.model(graph.architecture)


class _Emitter:
    """Values are [N, C, H, W] under their layer's name; binary operators leave [N, H, W, C], named `<layer>/nhwc`."""

    def __init__(self, graph: Graph[FoldedInteger]) -> None:
        self.graph = graph
        self.writer = Writer()
        self.plan = binary.plan(graph)
        self.planes: dict[str, str] = {}
        self.pixels: dict[str, str] = {}

    def emit(self, layer: Layer) -> None:
        if layer.name in self.plan.absorbed:
            return
        operator = self.plan.operators.get(layer.name)
        if operator is not None:
            self.pixels[layer.name] = self._binary(operator)
        elif layer.kind is Kind.ADD and all(name in self.pixels for name in layer.inputs):
            self.pixels[layer.name] = self._add(layer, [self.pixels[name] for name in layer.inputs], _nhwc(layer.name))
        else:
            output = value_name(self.graph.architecture, layer.name)
            inputs = [self._as_planes(name) for name in layer.inputs]
            self.planes[layer.name] = self._plain(layer, inputs, output)

    def _plain(self, layer: Layer, inputs: list[str], output: str) -> str:
        match layer.kind:
            case Kind.CONV:
                self._conv(layer, inputs[0], output)
            case Kind.RECODE:
                self._recode(layer, inputs[0], output)
            case Kind.PRELU:
                self._prelu(layer, inputs[0], output)
            case Kind.MAXPOOL:
                self.writer.node("MaxPool", inputs, output, **window(layer))
            case Kind.ADD:
                self._add(layer, inputs, output)
            case Kind.AVGPOOL:
                self._avgpool(layer, inputs[0], output)
            case Kind.LINEAR:
                self._linear(layer, inputs[0], output)
        return output

    def _as_planes(self, name: str) -> str:
        """[N, C, H, W]."""
        if name not in self.planes and name in self.pixels:
            self.planes[name] = self.writer.node("Transpose", [self.pixels[name]], name, perm=[0, 3, 1, 2])
        return self.planes.get(name) or value_name(self.graph.architecture, name)

    def _as_pixels(self, name: str) -> str:
        """[N, H, W, C]."""
        if name not in self.pixels:
            self.pixels[name] = self.writer.node("Transpose", [self._as_planes(name)], _nhwc(name), perm=[0, 2, 3, 1])
        return self.pixels[name]

    def _binary(self, operator: binary.Binary) -> str:
        conv, constant, name = operator.conv, self.writer.constant, operator.conv.name
        node, coding, coding_in = self.graph.nodes[name], self.graph.codings[name], self.graph.coding_in(conv)
        bits = bitpack.pack((node.codes_OX.reshape(-1) > 0).astype(np.uint8), 1)
        step_in = constant(f"{self.graph.architecture.scale_of(conv.inputs[0])}.step", coding_in.step)
        inputs = [
            self._as_pixels(operator.x),
            step_in,
            constant(f"{name}.threshold", operator.threshold_C),
            constant(f"edges_{conv.padding}", np.array([0, conv.padding, conv.padding, 0] * 2, np.int64)),
            constant(f"{name}.weight", np.frombuffer(bits, np.uint8)),
            constant(f"shape/{'x'.join(map(str, node.codes_OX.shape))}", np.array(node.codes_OX.shape, np.int64)),
            constant(f"{name}.weight_scale", node.scale_O),
            constant(f"{name}.bias", node.bias_O),
            *self._coding(name),
        ]
        attributes = {
            "strides": [conv.stride] * 2,
            "levels": operator.levels,
            "low": coding.low,
            "high": coding.high,
        }
        self.writer.define(BINARY_CONV)
        channels, *edge = operator.last.out_shape
        output = self.writer.declare(_nhwc(operator.last.name), [*edge, channels])
        if operator.prelu is None or operator.shortcut is None:
            return self.writer.call(BINARY_CONV, inputs, output, **attributes)
        learned, last = self.graph.prelus[operator.prelu.name], operator.prelu.name
        inputs += [
            self._as_pixels(operator.shortcut),
            constant(f"{last}.slope", learned.slope_C),
            constant(f"{last}.shift_in", learned.shift_in_C),
            constant(f"{last}.shift_out", learned.shift_out_C),
        ]
        return self.writer.call(BINARY_RESIDUAL, inputs, output, **attributes)

    def _conv(self, layer: Layer, x: str, output: str) -> None:
        node = self.graph.nodes[layer.name]
        x, padding = self._padded(layer, x)
        if node.norm is not None:
            self._normalised_conv(layer, node, node.norm, x, padding, output)
            return
        constant = self.writer.constant
        weight = constant(f"{layer.name}.weight", node.codes_OX)
        scale = constant(f"{layer.name}.weight_scale", node.scale_O)
        bias = constant(f"{layer.name}.bias", node.bias_O)
        weight_zero = constant("weight_zero", np.int8(0))
        inputs = [x, *self._coding(layer.inputs[0]), weight, scale, weight_zero, *self._coding(layer.name), bias]
        self._store(layer, "QLinearConv", inputs, output, **grouped_window(layer, padding=padding))

    def _padded(self, layer: Layer, x: str) -> tuple[str, int]:
        """The input, and the padding that is left to the convolution, which always pads with the zero point."""
        coding = self.graph.coding_in(layer)
        if coding.pad == coding.zero or not layer.padding:
            return x, layer.padding
        edges = [0, 0, layer.padding, layer.padding]
        pads = self.writer.constant(f"pads_{layer.padding}", np.array(edges * 2, np.int64))
        return self.writer.node("Pad", [x, pads, self._level(coding.pad)], f"{layer.name}/padded"), 0

    def _normalised_conv(
        self, layer: Layer, node: FoldedInteger, norm: GroupNorm, x: str, padding: int, output: str
    ) -> None:
        constant, add_node, name = self.writer.constant, self.writer.node, layer.name
        coding_in, coding = self.graph.coding_in(layer), self.graph.codings[name]
        sums = exact_sums(self.writer, layer, node, x, coding_in, padding)
        unit_O = np.float64(coding_in.step) * node.scale_O.astype(np.float64)
        values = add_node("Mul", [sums, constant(f"{name}.unit", unit_O.reshape(-1, 1, 1))], f"{name}/values")
        y = group_norm(self.writer, layer, norm, values, f"{name}/normalised", kind=TensorProto.DOUBLE)
        step = constant(f"{layer.scale}.step_f64", np.float64(coding.step))
        levels = add_node("Round", [add_node("Div", [y, step], f"{name}/exact")], f"{name}/levels")
        stored = add_node("Add", [levels, _double(self.writer, coding.zero)], f"{name}/stored")
        limits = [_double(self.writer, coding.low), _double(self.writer, coding.high)]
        add_node("Cast", [add_node("Clip", [stored, *limits], f"{name}/clipped")], output, to=TensorProto.UINT8)

    def _recode(self, layer: Layer, x: str, output: str) -> None:
        node, coding = self.writer.node, self.graph.codings[layer.name]
        values = node("DequantizeLinear", [x, *self._coding(layer.inputs[0])], f"{layer.name}/values")
        threshold_C = self.graph.thresholds_C.get(layer.name)
        if threshold_C is None:
            self._store(layer, "QuantizeLinear", [values, *self._coding(layer.name)], output)
            return
        threshold = self.writer.constant(f"{layer.name}.threshold", threshold_C.reshape(-1, 1, 1))
        reached = node("GreaterOrEqual", [values, threshold], f"{layer.name}/reached")
        node("Where", [reached, self._level(coding.high), self._level(coding.low)], output)

    def _prelu(self, layer: Layer, x: str, output: str) -> None:
        values = self.writer.node("DequantizeLinear", [x, *self._coding(layer.inputs[0])], f"{layer.name}/values")
        bent = prelu(self.writer, layer, self.graph.prelus[layer.name], values, f"{layer.name}/result")
        self._store(layer, "QuantizeLinear", [bent, *self._coding(layer.name)], output)

    def _add(self, layer: Layer, inputs: list[str], output: str) -> str:
        branches = [
            self.writer.node("DequantizeLinear", [x, *self._coding(name)], f"{output}/{side}")
            for side, name, x in zip(("left", "right"), layer.inputs, inputs, strict=True)
        ]
        total = self.writer.node("Add", branches, f"{output}/sum")
        self._store(layer, "QuantizeLinear", [total, *self._coding(layer.name)], output)
        return output

    def _avgpool(self, layer: Layer, x: str, output: str) -> None:
        coding = self.graph.coding_in(layer)
        factor = pool_multiplier(coding.step, pixels(layer), self.graph.codings[layer.name].step)
        constant, node = self.writer.constant, self.writer.node
        values = node("Cast", [x], f"{output}/float", to=TensorProto.FLOAT)
        axes = constant(f"{layer.name}.axes", np.array([2, 3], np.int64))
        total = node("ReduceSum", [values, axes], f"{output}/sum", keepdims=0)
        if coding.zero:
            zeros = constant(f"{layer.name}.zeros", np.float32(coding.zero * pixels(layer)))
            total = node("Sub", [total, zeros], f"{output}/centred")
        mean = node("Mul", [total, constant(f"{layer.name}.multiplier", factor)], f"{output}/mean")
        self._store_levels(layer, mean, output)

    def _linear(self, layer: Layer, x: str, output: str) -> None:
        folded, constant, node = self.graph.nodes[layer.name], self.writer.constant, self.writer.node
        coding = self.graph.coding_in(layer)
        weight_IO = constant(f"{layer.name}.weight", np.ascontiguousarray(folded.codes_OX.T))
        inputs = [flat(self.writer, layer, x), weight_IO]
        if coding.zero:
            inputs.append(self._zero_point(layer.inputs[0]))
        products = node("MatMulInteger", inputs, f"{output}/products")
        total = node("Add", [products, constant(f"{layer.name}.bias", folded.bias_O)], f"{output}/sum")
        values = node("Cast", [total], f"{output}/float", to=TensorProto.FLOAT)
        if not layer.scale:
            scale_O = (coding.step * folded.scale_O).astype(np.float32)
            node("Mul", [values, constant(f"{layer.name}.logit_scale", scale_O)], output)
            return
        factor_O = multiplier(coding.step, folded.scale_O, self.graph.codings[layer.name].step)
        levels = node("Mul", [values, constant(f"{layer.name}.multiplier", factor_O)], f"{output}/levels")
        self._store_levels(layer, levels, output)

    def _store_levels(self, layer: Layer, levels: str, output: str) -> None:
        """Round what is in units of the layer's step already."""
        unit = self.writer.constant("unit_step", np.float32(1))
        self._store(layer, "QuantizeLinear", [levels, unit, self._zero_point(layer.name)], output)

    def _store(
        self, layer: Layer, operator: str, inputs: list[str], output: str, **attributes: int | list[int]
    ) -> None:
        """An operator that saturates at 0 and 255, and a Clip where the layer stores less."""
        coding = self.graph.codings[layer.name]
        if not coding.is_narrow:
            self.writer.node(operator, inputs, output, **attributes)
            return
        wide = self.writer.node(operator, inputs, f"{layer.name}/wide", **attributes)
        self.writer.node("Clip", [wide, self._level(coding.low), self._level(coding.high)], output)

    def _coding(self, name: str) -> tuple[str, str]:
        """Step and zero point of a layer's output or the picture, as constants."""
        scale = self.graph.architecture.scale_of(name)
        return self.writer.constant(f"{scale}.step", self.graph.codings[name].step), self._zero_point(name)

    def _zero_point(self, name: str) -> str:
        coding: Coding = self.graph.codings[name]
        return self.writer.constant(f"zero_point_{coding.zero}", np.uint8(coding.zero))

    def _level(self, stored: int) -> str:
        return self.writer.constant(f"level_{stored}", np.uint8(stored))


def _nhwc(name: str) -> str:
    return f"{name}/nhwc"


def _double(writer: Writer, value: int) -> str:
    constant: npt.NDArray[np.float64] = np.asarray(value, np.float64)
    return writer.constant(f"double_{value}", constant)
