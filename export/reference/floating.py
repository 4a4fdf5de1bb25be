"""The fp32 network in float64, which no float32 implementation reaches: models agree within a tolerance."""

import numpy as np

from export import arithmetic
from export.arithmetic import UInt8
from export.passes import float_numbers
from export.reference.walk import Network, Operator, normalise_groups
from export.reference.windows import Values, columns, patches, per_channel, planes
from protocol.architecture import INPUT_STEP, Architecture, Kind, Layer, Tensors
from protocol.precision import FP32


class FloatNetwork(Network):
    """The float reference.

    Raises:
        ExportError: the tensors are not this network's.
    """

    def __init__(self, architecture: Architecture, tensors: Tensors) -> None:
        operators: dict[Kind, Operator] = {  # no RECODE: at fp32 nothing is narrowed
            Kind.CONV: self._conv,
            Kind.PRELU: self._prelu,
            Kind.ADD: self._add,
            Kind.AVGPOOL: self._avgpool,
            Kind.LINEAR: self._linear,
        }
        super().__init__(architecture.at(FP32), operators)
        self._graph = float_numbers(architecture, FP32, tensors)

    def _enter(self, pictures_NCHW: UInt8) -> Values:
        return (pictures_NCHW.astype(np.float64) - self.architecture.zero) * INPUT_STEP

    def _conv(self, layer: Layer, x: Values) -> Values:
        node = self._graph.nodes[layer.name]
        sums = planes(layer, patches(layer, x) @ columns(layer, node.weight_OX.astype(np.float64)))
        y = sums + per_channel(node.bias_O) if node.norm is None else normalise_groups(node.norm, sums)
        return _rectified(layer, y)

    def _prelu(self, layer: Layer, x: Values) -> Values:
        learned = self._graph.prelus[layer.name]
        v = x - per_channel(learned.shift_in_C)
        return np.where(v > 0, v, v * per_channel(learned.slope_C)) + per_channel(learned.shift_out_C)

    def _add(self, layer: Layer, left: Values, right: Values) -> Values:
        return _rectified(layer, left + right)

    def _avgpool(self, layer: Layer, x: Values) -> Values:
        return x.sum(axis=(2, 3)) / arithmetic.pixels(layer)

    def _linear(self, layer: Layer, x: Values) -> Values:
        node = self._graph.nodes[layer.name]
        return _rectified(layer, x.reshape(len(x), -1) @ node.weight_OX.T.astype(np.float64) + node.bias_O)


def _rectified(layer: Layer, values: Values) -> Values:
    return np.maximum(values, 0) if layer.relu else values
