"""Pass: the folded float network as ONNX operators. Pictures are uint8 here too and become (x − zero)/255 first."""

import numpy as np
from onnx import ModelProto, TensorProto

from export.graph import FoldedFloat, Graph
from export.passes.group_norm import group_norm
from export.passes.prelu import prelu
from export.passes.window import flat, grouped_window, window
from export.writer import PICTURES, Writer, value_name
from protocol.architecture import INPUT, INPUT_STEP, Kind, Layer


def float_arithmetic(graph: Graph[FoldedFloat]) -> ModelProto:
    """Conv, Relu, PRelu, MaxPool, Add, GlobalAveragePool and Gemm in float32."""
    writer = Writer()
    pixels = writer.node("Cast", [PICTURES], f"{INPUT}/float", to=TensorProto.FLOAT)
    if graph.architecture.zero:
        zero = writer.constant(f"{INPUT}.zero", np.float32(graph.architecture.zero))
        pixels = writer.node("Sub", [pixels, zero], f"{INPUT}/centred")
    step = writer.constant(f"{INPUT}.step", np.float32(INPUT_STEP))
    writer.node("Mul", [pixels, step], f"{INPUT}/scaled")
    for layer in graph.architecture.layers:
        _emit(writer, graph, layer)
    return writer.model(graph.architecture)


def _emit(writer: Writer, graph: Graph[FoldedFloat], layer: Layer) -> None:
    inputs = [f"{INPUT}/scaled" if name == INPUT else name for name in layer.inputs]
    output = value_name(graph.architecture, layer.name)
    rectified = layer.relu and layer.kind in {Kind.CONV, Kind.ADD, Kind.LINEAR}
    target = f"{output}/sum" if rectified else output
    match layer.kind:
        case Kind.CONV:
            _conv(writer, layer, graph.nodes[layer.name], inputs[0], target)
        case Kind.PRELU:
            prelu(writer, layer, graph.prelus[layer.name], inputs[0], target)
        case Kind.MAXPOOL:
            writer.node("MaxPool", inputs, target, **window(layer))
        case Kind.ADD:
            writer.node("Add", inputs, target)
        case Kind.AVGPOOL:
            pooled = writer.node("GlobalAveragePool", inputs, f"{output}/pooled")
            writer.node("Flatten", [pooled], target)
        case Kind.LINEAR:
            node = graph.nodes[layer.name]
            weight = writer.constant(f"{layer.name}.weight", node.weight_OX)
            bias = writer.constant(f"{layer.name}.bias", node.bias_O)
            writer.node("Gemm", [flat(writer, layer, inputs[0]), weight, bias], target, transB=1)
        case Kind.RECODE:
            raise AssertionError(f"{layer.name}: a float network has no row that narrows")
    if rectified:
        writer.node("Relu", [target], output)


def _conv(writer: Writer, layer: Layer, node: FoldedFloat, x: str, output: str) -> None:
    weight = writer.constant(f"{layer.name}.weight", node.weight_OX)
    if node.norm is None:
        bias = writer.constant(f"{layer.name}.bias", node.bias_O)
        writer.node("Conv", [x, weight, bias], output, **grouped_window(layer))
        return
    products = writer.node("Conv", [x, weight], f"{layer.name}/products", **grouped_window(layer))
    group_norm(writer, layer, node.norm, products, output, kind=TensorProto.FLOAT)
