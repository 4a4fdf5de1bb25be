"""The integer definition of `export.arithmetic`, exact in every bit of every logit.

Sums of products are taken in floating point only where all partial sums are integers that the type represents, below
2^24 in float32 and 2^53 in float64. GroupNorm alone is real float64 arithmetic (`export.passes.group_norm` says why
that holds).
"""

import numpy as np

from export import arithmetic
from export.arithmetic import UInt8, dequantize, multiplier, pool_multiplier, requantize, store
from export.graph import FoldedInteger
from export.passes import integer_numbers
from export.passes.exact_sums import EXACT_IN_FLOAT32, largest_sum
from export.reference.walk import Network, Operator, normalise_groups
from export.reference.windows import Values, columns, patches, per_channel, planes
from protocol.architecture import Architecture, Kind, Layer, Tensors
from protocol.precision import Precision


class IntegerNetwork(Network):
    """The integer reference.

    Raises:
        ExportError: the tensors are not this network's at this precision.
    """

    def __init__(self, architecture: Architecture, precision: Precision, tensors: Tensors) -> None:
        operators: dict[Kind, Operator] = {
            Kind.CONV: self._conv,
            Kind.RECODE: self._recode,
            Kind.PRELU: self._prelu,
            Kind.ADD: self._add,
            Kind.AVGPOOL: self._avgpool,
            Kind.LINEAR: self._linear,
        }
        super().__init__(architecture.at(precision), operators)
        self.graph = integer_numbers(architecture, precision, tensors)
        self._weights = {name: _exact_weights(node) for name, node in self.graph.nodes.items()}

    def _enter(self, pictures_NCHW: UInt8) -> Values:
        return pictures_NCHW

    def _conv(self, layer: Layer, x: Values) -> Values:
        node = self.graph.nodes[layer.name]
        coding_in, coding = self.graph.coding_in(layer), self.graph.codings[layer.name]
        centred = patches(layer, x, coding_in.pad).astype(np.float32) - np.float32(coding_in.zero)
        sums = planes(layer, centred @ columns(layer, self._weights[layer.name])).astype(np.int32)
        if node.norm is not None:
            unit_O = np.float64(coding_in.step) * node.scale_O.astype(np.float64)
            return store(normalise_groups(node.norm, sums * per_channel(unit_O)) / np.float64(coding.step), coding)
        factor_O = multiplier(coding_in.step, node.scale_O, coding.step)
        return requantize(sums + per_channel(node.bias_O), per_channel(factor_O), coding)

    def _recode(self, layer: Layer, x: Values) -> Values:
        threshold_C = self.graph.thresholds_C.get(layer.name)
        threshold = None if threshold_C is None else per_channel(threshold_C)
        return arithmetic.recode(x, self.graph.coding_in(layer), self.graph.codings[layer.name], threshold)

    def _prelu(self, layer: Layer, x: Values) -> Values:
        coding, learned = self.graph.codings[layer.name], self.graph.prelus[layer.name]
        with np.errstate(over="ignore"):  # infinity clips like any large value
            v = dequantize(x, self.graph.coding_in(layer)) - per_channel(learned.shift_in_C)
            y = np.where(v > 0, v, v * per_channel(learned.slope_C)) + per_channel(learned.shift_out_C)
        return store(y / coding.step, coding)

    def _add(self, layer: Layer, left: Values, right: Values) -> Values:
        left_coding, right_coding = (self.graph.codings[name] for name in layer.inputs)
        return arithmetic.add(left, left_coding, right, right_coding, self.graph.codings[layer.name])

    def _avgpool(self, layer: Layer, x: Values) -> Values:
        coding_in, coding = self.graph.coding_in(layer), self.graph.codings[layer.name]
        count = arithmetic.pixels(layer)
        total = x.sum(axis=(2, 3), dtype=np.int64) - coding_in.zero * count
        return requantize(total, pool_multiplier(coding_in.step, count, coding.step), coding)

    def _linear(self, layer: Layer, x: Values) -> Values:
        node, coding_in = self.graph.nodes[layer.name], self.graph.coding_in(layer)
        centred_NI = x.reshape(len(x), -1).astype(np.float64) - coding_in.zero
        total = (centred_NI @ node.codes_OX.T.astype(np.float64)).astype(np.int32) + node.bias_O
        if not layer.scale:
            return total.astype(np.float32) * (coding_in.step * node.scale_O)
        coding = self.graph.codings[layer.name]
        return requantize(total, multiplier(coding_in.step, node.scale_O, coding.step), coding)


def _exact_weights(node: FoldedInteger) -> Values:
    """Codes in the smallest float type in which no sum of products with stored activations can round."""
    return node.codes_OX.astype(np.float32 if largest_sum(node) < EXACT_IN_FLOAT32 else np.float64)
