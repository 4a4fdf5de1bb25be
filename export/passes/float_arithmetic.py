"""Pass: the folded float network as ONNX operators. Pictures are uint8 here too and become x/255 first."""

import numpy as np
from onnx import ModelProto, TensorProto

from export.graph import FoldedFloat, Graph
from export.writer import PICTURES, Writer, value_name
from protocol.architecture import INPUT, INPUT_STEP, Architecture, Kind, Layer


def float_arithmetic(graph: Graph[FoldedFloat]) -> ModelProto:
    """Conv, Relu, MaxPool, Add, GlobalAveragePool and Gemm in float32."""
    writer = Writer()
    pixels = writer.node("Cast", [PICTURES], f"{INPUT}/float", to=TensorProto.FLOAT)
    step = writer.constant(f"{INPUT}.step", np.float32(INPUT_STEP))
    writer.node("Mul", [pixels, step], f"{INPUT}/scaled")
    for layer in graph.architecture.layers:
        _emit(writer, graph.architecture, layer, graph.nodes.get(layer.name))
    return writer.model(graph.architecture)


def _emit(writer: Writer, architecture: Architecture, layer: Layer, node: FoldedFloat | None) -> None:
    inputs = [f"{INPUT}/scaled" if name == INPUT else name for name in layer.inputs]
    output = value_name(architecture, layer.name)
    if node is not None:
        inputs.append(writer.constant(f"{layer.name}.weight", node.weight_OX))
        inputs.append(writer.constant(f"{layer.name}.bias", node.bias_O))
    rectified = layer.relu and layer.kind in {Kind.CONV, Kind.ADD}
    target = f"{output}/sum" if rectified else output
    match layer.kind:
        case Kind.CONV:
            writer.node("Conv", inputs, target, **window(layer))
        case Kind.MAXPOOL:
            writer.node("MaxPool", inputs, target, **window(layer))
        case Kind.ADD:
            writer.node("Add", inputs, target)
        case Kind.AVGPOOL:
            pooled = writer.node("GlobalAveragePool", inputs, f"{output}/pooled")
            writer.node("Flatten", [pooled], target)
        case Kind.LINEAR:
            writer.node("Gemm", inputs, target, transB=1)
    if rectified:
        writer.node("Relu", [target], output)


def window(layer: Layer) -> dict[str, list[int]]:
    """The attributes of a sliding window, for convolutions and max pooling alike."""
    return {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
    }
