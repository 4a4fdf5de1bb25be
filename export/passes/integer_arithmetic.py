"""Pass: the folded integer network as plain ONNX operators that ONNX Runtime turns into exact, fast arithmetic.

Per kind of layer, what is written and what the runtime makes of it:

    conv       QLinearConv (u8 × s8, per channel)                           the same, in NHWC
    maxpool    MaxPool on uint8                                             NhwcMaxPool
    add        DequantizeLinear twice, Add, QuantizeLinear, all of one step QLinearAdd
    avgpool    Cast, ReduceSum, Mul, QuantizeLinear of step 1               the same
    linear     MatMulInteger, Add int32, Cast, Mul                          the same

There is no QLinearAdd in ai.onnx. Its float spelling is exact wherever it runs unfused too: the sum of two 8-bit
integers times one step, divided by that step, is off by less than a thousandth of a level.
A ReLU needs no operator: storing an unsigned activation clips at 0.
"""

import numpy as np
from onnx import ModelProto, TensorProto

from export.arithmetic import pixels, pool_multiplier, zero_point
from export.graph import FoldedInteger, Graph
from export.passes.float_arithmetic import window
from export.writer import Writer, value_name
from protocol.architecture import INPUT, Kind, Layer


def integer_arithmetic(graph: Graph[FoldedInteger]) -> ModelProto:
    """Integer operators from the uint8 picture to the classifier's sums; only its logits are float."""
    emitter = _Emitter(graph)
    for layer in graph.architecture.layers:
        emitter.emit(layer)
    return emitter.writer.model(graph.architecture)


class _Emitter:
    def __init__(self, graph: Graph[FoldedInteger]) -> None:
        self.graph = graph
        self.writer = Writer()

    def emit(self, layer: Layer) -> None:
        inputs = [value_name(self.graph.architecture, name) for name in layer.inputs]
        output = value_name(self.graph.architecture, layer.name)
        match layer.kind:
            case Kind.CONV:
                self._conv(layer, inputs[0], output)
            case Kind.MAXPOOL:
                self.writer.node("MaxPool", inputs, output, **window(layer))
            case Kind.ADD:
                self._add(layer, inputs, output)
            case Kind.AVGPOOL:
                self._avgpool(layer, inputs[0], output)
            case Kind.LINEAR:
                self._linear(layer, inputs[0], output)

    def _conv(self, layer: Layer, x: str, output: str) -> None:
        node, constant = self.graph.nodes[layer.name], self.writer.constant
        weight = constant(f"{layer.name}.weight", node.codes_OX)
        scale = constant(f"{layer.name}.weight_scale", node.scale_O)
        bias = constant(f"{layer.name}.bias", node.bias_O)
        weight_zero = constant("weight_zero", np.int8(0))
        inputs = [x, *self._coding(layer.inputs[0]), weight, scale, weight_zero, *self._coding(layer.name), bias]
        self.writer.node("QLinearConv", inputs, output, **window(layer))

    def _add(self, layer: Layer, inputs: list[str], output: str) -> None:
        branches = [
            self.writer.node("DequantizeLinear", [x, *self._coding(name)], f"{output}/{side}")
            for side, name, x in zip(("left", "right"), layer.inputs, inputs, strict=True)
        ]
        total = self.writer.node("Add", branches, f"{output}/sum")
        self.writer.node("QuantizeLinear", [total, *self._coding(layer.name)], output)

    def _avgpool(self, layer: Layer, x: str, output: str) -> None:
        factor = pool_multiplier(self.graph.input_step(layer), pixels(layer), self.graph.steps[layer.scale])
        constant, node = self.writer.constant, self.writer.node
        values = node("Cast", [x], f"{output}/float", to=TensorProto.FLOAT)
        axes = constant(f"{layer.name}.axes", np.array([2, 3], np.int64))
        total = node("ReduceSum", [values, axes], f"{output}/sum", keepdims=0)
        mean = node("Mul", [total, constant(f"{layer.name}.multiplier", factor)], f"{output}/mean")
        unit = constant("unit_step", np.float32(1))
        node("QuantizeLinear", [mean, unit, self._zero_point(layer.name)], output)

    def _linear(self, layer: Layer, x: str, output: str) -> None:
        folded, constant, node = self.graph.nodes[layer.name], self.writer.constant, self.writer.node
        weight_IO = constant(f"{layer.name}.weight", np.ascontiguousarray(folded.codes_OX.T))
        products = node("MatMulInteger", [x, weight_IO], f"{output}/products")
        total = node("Add", [products, constant(f"{layer.name}.bias", folded.bias_O)], f"{output}/sum")
        values = node("Cast", [total], f"{output}/float", to=TensorProto.FLOAT)
        scale_O = (self.graph.input_step(layer) * folded.scale_O).astype(np.float32)
        node("Mul", [values, constant(f"{layer.name}.logit_scale", scale_O)], output)

    def _coding(self, name: str) -> tuple[str, str]:
        """Step and zero point of a layer's output or the picture, as constants."""
        scale = self.graph.architecture.scale_of(name)
        return self.writer.constant(f"{scale}.step", self.graph.steps[scale]), self._zero_point(name)

    def _zero_point(self, name: str) -> str:
        zero = 0 if name == INPUT else zero_point(self.graph.architecture.by_name[name])
        return self.writer.constant(f"zero_point_{zero}", np.uint8(zero))
