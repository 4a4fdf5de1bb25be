"""The network in numpy, layer by layer, as slow and as plain as the definition: what every exported model is held to.

`IntegerNetwork` is exact: sums of products are taken in floating point only where all partial sums are integers
that the type represents, below 2^24 in float32 and 2^53 in float64. `FloatNetwork` computes in float64.

Shapes: N pictures, C channels, H rows, W columns; O output channels; K kernel edge; P output pixels.
"""

from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from threadpoolctl import threadpool_limits

from export import arithmetic
from export.arithmetic import UInt8, multiplier, pool_multiplier, requantize, zero_point
from export.graph import FoldedFloat, FoldedInteger
from export.passes import float_numbers, integer_numbers
from protocol.architecture import INPUT, INPUT_STEP, Architecture, Kind, Layer, Tensors
from protocol.precision import FP32, Float32, Int8, Precision

Values = npt.NDArray[Any]

_EXACT_IN_FLOAT32: Final = 1 << 24
_PATCH_ELEMENTS: Final = 1 << 22
"""Values of one layer's patches held at once: 32 MB in float64."""


class _Network(ABC):
    """Walks the table; the subclasses know what each kind of layer computes."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        largest = max(_patch_elements(layer) for layer in architecture.layers)
        self._pictures_at_once = max(1, _PATCH_ELEMENTS // largest)

    def logits(self, pictures_NCHW: UInt8) -> Float32:
        """float32[N, classes] for uint8[N, C, H, W].

        On one BLAS thread: on a shared machine its spinning workers took twenty times as long as one thread alone.
        """
        size = self._pictures_at_once
        parts = (pictures_NCHW[start : start + size] for start in range(0, len(pictures_NCHW), size))
        last = self.architecture.layers[-1].name
        with threadpool_limits(1, user_api="blas"):
            results = [self.activations(part)[last].astype(np.float32) for part in parts]
        return np.concatenate(results) if results else np.empty((0, self.architecture.classes), np.float32)

    def activations(self, pictures_NCHW: UInt8) -> dict[str, Values]:
        """What every layer stores, by layer name; the last entry is the logits."""
        values: dict[str, Values] = {INPUT: self._enter(pictures_NCHW)}
        for layer in self.architecture.layers:
            values[layer.name] = self._apply(layer, [values[name] for name in layer.inputs])
        del values[INPUT]
        return values

    def _apply(self, layer: Layer, inputs: list[Values]) -> Values:
        match layer.kind:
            case Kind.CONV:
                return self._conv(layer, inputs[0])
            case Kind.MAXPOOL:
                return _maxpool(layer, inputs[0])
            case Kind.ADD:
                return self._add(layer, inputs[0], inputs[1])
            case Kind.AVGPOOL:
                return self._avgpool(layer, inputs[0])
            case Kind.LINEAR:
                return self._linear(layer, inputs[0])

    @abstractmethod
    def _enter(self, pictures_NCHW: UInt8) -> Values: ...
    @abstractmethod
    def _conv(self, layer: Layer, x: Values) -> Values: ...
    @abstractmethod
    def _add(self, layer: Layer, left: Values, right: Values) -> Values: ...
    @abstractmethod
    def _avgpool(self, layer: Layer, x: Values) -> Values: ...
    @abstractmethod
    def _linear(self, layer: Layer, x: Values) -> Values: ...


class IntegerNetwork(_Network):
    """The integer definition of `export.arithmetic`, exact in every bit of every logit.

    Raises:
        ExportError: the tensors are not this network's at this precision.
    """

    def __init__(self, architecture: Architecture, precision: Precision, tensors: Tensors) -> None:
        super().__init__(architecture)
        self._graph = integer_numbers(architecture, precision, tensors)
        self._weights = {name: _exact_weights(node) for name, node in self._graph.nodes.items()}

    def _zero(self, name: str) -> int:
        return zero_point(self.architecture.by_name[name])

    def _enter(self, pictures_NCHW: UInt8) -> Values:
        return pictures_NCHW

    def _conv(self, layer: Layer, x: Values) -> Values:
        """Every convolution reads unsigned activations, so zero padding is padding with the value 0."""
        node = self._graph.nodes[layer.name]
        sums_NPO = _patches(layer, x) @ self._weights[layer.name]
        accumulator = sums_NPO.astype(np.int32) + node.bias_O
        steps = self._graph.steps
        factor_O = multiplier(self._graph.input_step(layer), node.scale_O, steps[layer.scale])
        return _to_planes(layer, requantize(accumulator, factor_O, zero_point(layer)))

    def _add(self, layer: Layer, left: Values, right: Values) -> Values:
        return arithmetic.add(left, self._zero(layer.inputs[0]), right, self._zero(layer.inputs[1]))

    def _avgpool(self, layer: Layer, x: Values) -> Values:
        factor = pool_multiplier(
            self._graph.input_step(layer), arithmetic.pixels(layer), self._graph.steps[layer.scale]
        )
        return requantize(x.sum(axis=(2, 3), dtype=np.int64), factor, 0)

    def _linear(self, layer: Layer, x: Values) -> Values:
        node = self._graph.nodes[layer.name]
        total = (x.astype(np.float64) @ node.codes_OX.T.astype(np.float64)).astype(np.int32) + node.bias_O
        return total.astype(np.float32) * (self._graph.input_step(layer) * node.scale_O)


class FloatNetwork(_Network):
    """The fp32 network in float64, which no float32 implementation reaches: models agree within a tolerance.

    Raises:
        ExportError: the tensors are not this network's.
    """

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        super().__init__(architecture)
        self._nodes: dict[str, FoldedFloat] = dict(float_numbers(architecture, FP32, tensors).nodes)

    def _enter(self, pictures_NCHW: UInt8) -> Values:
        return pictures_NCHW * INPUT_STEP

    def _conv(self, layer: Layer, x: Values) -> Values:
        node = self._nodes[layer.name]
        sums_NPO = _patches(layer, x) @ node.weight_OX.reshape(len(node.bias_O), -1).T.astype(np.float64)
        planes = _to_planes(layer, sums_NPO + node.bias_O)
        return np.maximum(planes, 0) if layer.relu else planes

    def _add(self, layer: Layer, left: Values, right: Values) -> Values:
        return np.maximum(left + right, 0) if layer.relu else left + right

    def _avgpool(self, layer: Layer, x: Values) -> Values:
        return x.sum(axis=(2, 3)) / arithmetic.pixels(layer)

    def _linear(self, layer: Layer, x: Values) -> Values:
        node = self._nodes[layer.name]
        return x @ node.weight_OX.T.astype(np.float64) + node.bias_O


def _exact_weights(node: FoldedInteger) -> Values:
    """Codes as [X, O] in the smallest float type in which no sum of products with uint8 can round."""
    codes_OX: Int8 = node.codes_OX.reshape(len(node.bias_O), -1)
    largest_sum = 255 * int(np.abs(codes_OX.astype(np.int64)).sum(axis=1).max())
    return codes_OX.T.astype(np.float32 if largest_sum < _EXACT_IN_FLOAT32 else np.float64)


def _patches(layer: Layer, x: Values) -> Values:
    """Im2col: what each output pixel sees, [N, P, C·K·K]; uint8 becomes float32, which holds it exactly."""
    windows_NCHWKK = _windows(layer, x)
    patches = windows_NCHWKK.transpose(0, 2, 3, 1, 4, 5).reshape(len(x), layer.out_shape[1] * layer.out_shape[2], -1)
    return patches.astype(np.float32) if patches.dtype == np.uint8 else patches


def _maxpool(layer: Layer, x: Values) -> Values:
    """Activations before a max pooling are not negative, so padding with 0 never wins over a pixel."""
    return _windows(layer, x).max(axis=(4, 5))


def _windows(layer: Layer, x: Values) -> Values:
    pad, edge = layer.padding, layer.kernel
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return sliding_window_view(padded, (edge, edge), axis=(2, 3))[:, :, :: layer.stride, :: layer.stride]


def _to_planes(layer: Layer, values_NPO: Values) -> Values:
    """[N, P, O] to [N, O, H, W]."""
    channels, height, width = layer.out_shape
    return values_NPO.transpose(0, 2, 1).reshape(len(values_NPO), channels, height, width)


def _patch_elements(layer: Layer) -> int:
    if layer.kind not in {Kind.CONV, Kind.MAXPOOL}:
        return 1
    return layer.in_shape[0] * layer.kernel**2 * layer.out_shape[1] * layer.out_shape[2]
