"""Reads an ONNX ResNet18 by its shape as a graph, since names get lost on the way through torch's exporters.

    picture ─ Conv ─ norm ─ Relu (─ MaxPool) ─ blocks ─ GlobalAveragePool ─ Flatten ─ Gemm ─ logits
    block:  x ─┬─ Conv ─ norm ─ Relu ─ Conv ─ norm ─ Add ─ Relu
               └──────── (Conv ─ norm) ─────────────┘

A block whose shortcut has a convolution opens a stage. What comes out are arrays under torchvision's names, so that
files and checkpoints are judged alike; further convolutions in a block become `conv3` and are refused by that name.

A normalisation that was folded into its convolution left a bias b. It stands here as the identity, gain 1, mean 0 and
variance 1 − ε, with offset b: folded back, every bit of weight and bias is the file's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from export.foreign.found import Found
from export.foreign.onnx_graph import OnnxGraph
from export.writer import parse
from protocol.architecture import NORM_EPSILON

POOLS: Final = ("GlobalAveragePool", "ReduceMean", "AveragePool")
FLATTENING: Final = ("Flatten", "Reshape", "Squeeze")
EPSILON_TOLERANCE: Final = 1e-9
"""Attributes are float32: 1e−5 is stored a little beside itself."""


def read_onnx(path: Path) -> Found:
    """The weights of an ONNX ResNet.

    Raises:
        ExportError: the bytes are no ONNX model, or a node is none that such a network has; its name and operator are
            in the message.
        OSError: the file cannot be read.
    """
    graph = OnnxGraph(parse(path.read_bytes()))
    reader = _Reader(graph)
    reader.network()
    return Found(reader.arrays, "ONNX", graph.input_shape)


@dataclass(frozen=True, slots=True)
class _End:
    """Where a chain stopped: the value, and the Add that reads it."""

    value: str
    add: NodeProto


class _Reader:
    """Walks from the picture to the logits and keeps what it passes."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def network(self) -> None:
        """Everything, in order."""
        x = self._stem(self._graph.picture)
        stage, block = 1, 0
        while self._is_block(x):
            opens = self._opens_stage(x) and stage + block > 1
            stage, block = (stage + 1, 0) if opens else (stage, block)
            x = self._block(x, f"layer{stage}.{block}", stage)
            block += 1
        self._classifier(x)

    def _stem(self, x: str) -> str:
        node = self._graph.only_reader(x, "Conv")
        x = self._rectified(self._convolution(node, "conv1", "bn1"))
        small = self.arrays["conv1.weight"].shape[2] == 3
        self._check_window(node, stride=1 if small else 2)
        if small:
            return x
        pool = self._graph.only_reader(x, "MaxPool")
        self._graph.check(pool, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 0})
        return str(pool.output[0])

    def _is_block(self, x: str) -> bool:
        return any(node.op_type == "Conv" for node in self._graph.readers(x))

    def _opens_stage(self, x: str) -> bool:
        return sum(node.op_type == "Conv" for node in self._graph.readers(x)) > 1

    def _block(self, x: str, name: str, stage: int) -> str:
        """The block behind x; the longer branch is the main one, whichever comes first in the file."""
        starts = self._graph.readers(x)
        for node in starts:
            if node.op_type not in {"Conv", "Add"}:
                raise self._graph.unexpected(node, "Conv or Add at the start of a residual block")
        branches = [self._branch(node) for node in starts if node.op_type == "Conv"]
        branches.sort(key=lambda branch: -len(branch[0]))
        (main, end), shortcuts = branches[0], branches[1:]
        if len(shortcuts) > 1 or any(len(nodes) > 1 for nodes, _ in shortcuts):
            raise self._graph.unexpected(shortcuts[0][0][0], f"one convolution in the shortcut of {name}")
        for number, node in enumerate(main, start=1):
            self._convolution(node, f"{name}.conv{number}", f"{name}.bn{number}")
        for nodes, _ in shortcuts:
            self._convolution(nodes[0], f"{name}.downsample.0", f"{name}.downsample.1")
        if len(main) == 2:  # else it is none of ours, and its layers will be refused by name
            stride = 2 if stage > 1 and name.endswith(".0") else 1
            for node in (main[0], *(nodes[0] for nodes, _ in shortcuts)):
                self._check_window(node, stride=stride)
            self._check_window(main[1], stride=1)
        ends = {end.value, *(other.value for _, other in shortcuts)} | (set() if shortcuts else {x})
        if self._graph.inputs(end.add) != ends or any(other.add is not end.add for _, other in shortcuts):
            raise self._graph.unexpected(end.add, f"the sum of both branches of {name}")
        return self._rectified(str(end.add.output[0]))

    def _branch(self, node: NodeProto) -> tuple[list[NodeProto], _End]:
        """The convolutions from `node` on to the Add, with only normalisation and Relu between."""
        nodes = [node]
        while True:
            x = self._behind_norm(node)
            reader = self._graph.only_reader(x, "Add", "Relu")
            if reader.op_type == "Add":
                return nodes, _End(x, reader)
            node = self._graph.only_reader(str(reader.output[0]), "Conv")
            nodes.append(node)

    def _behind_norm(self, node: NodeProto) -> str:
        x = str(node.output[0])
        readers = self._graph.readers(x)
        return str(readers[0].output[0]) if [r.op_type for r in readers] == ["BatchNormalization"] else x

    def _convolution(self, node: NodeProto, convolution: str, norm: str) -> str:
        """Keep a convolution and what normalises it; returns the value behind both."""
        weight, *bias = (self._graph.constant(node, name) for name in node.input[1:])
        self.arrays[f"{convolution}.weight"] = weight
        behind = self._behind_norm(node)
        if behind != node.output[0]:
            self._normalisation(self._graph.readers(str(node.output[0]))[0], norm, bias)
            return behind
        identity = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - NORM_EPSILON, "bias": 0.0}
        for part, value in identity.items():
            self.arrays[f"{norm}.{part}"] = np.full(len(weight), value, np.float32)
        if bias:
            self.arrays[f"{norm}.bias"] = bias[0]
        return behind

    def _normalisation(self, node: NodeProto, norm: str, bias: list[npt.NDArray[Any]]) -> None:
        epsilon = self._graph.attribute(node, "epsilon", NORM_EPSILON)
        if abs(epsilon - NORM_EPSILON) > EPSILON_TOLERANCE:
            raise self._graph.unexpected(node, f"an epsilon of {NORM_EPSILON:g}, not {epsilon:g}")
        gain, offset, mean, variance = (self._graph.constant(node, name) for name in node.input[1:5])
        if bias:
            mean = mean - bias[0]
        values = {"weight": gain, "bias": offset, "running_mean": mean, "running_var": variance}
        self.arrays |= {f"{norm}.{part}": array for part, array in values.items()}

    def _check_window(self, node: NodeProto, *, stride: int) -> None:
        kernel = self._graph.constant(node, node.input[1]).shape[2]
        self._graph.check(
            node,
            {"strides": [stride] * 2, "pads": [kernel // 2] * 4, "dilations": [1, 1], "group": 1, "auto_pad": "NOTSET"},
        )

    def _rectified(self, x: str) -> str:
        return str(self._graph.only_reader(x, "Relu").output[0])

    def _classifier(self, x: str) -> None:
        pool = self._graph.only_reader(x, *POOLS)
        node = self._graph.only_reader(str(pool.output[0]), *FLATTENING, "Gemm")
        if node.op_type != "Gemm":
            node = self._graph.only_reader(str(node.output[0]), "Gemm")
        self._graph.check(node, {"alpha": 1.0, "beta": 1.0, "transA": 0})
        weight, *bias = (self._graph.constant(node, name) for name in node.input[1:])
        turned = self._graph.attribute(node, "transB", 0)
        self.arrays["fc.weight"] = weight if turned else weight.T
        self.arrays["fc.bias"] = bias[0] if bias else np.zeros(len(self.arrays["fc.weight"]), np.float32)
        self._graph.require_output(str(node.output[0]))
