"""A network over all calibration pictures, one row of the table after the other, in float32.

The references of `export.reference` take a few pictures through all rows; here a row sees all of them before the next
one starts, because the next one's numbers depend on what is measured in between.

Shapes: N pictures, C channels, H rows, W columns, O output channels, X the remaining axes of a weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from export.arithmetic import UInt8
from export.graph import GroupNorm
from export.reference.walk import normalise_groups
from export.reference.windows import Values, columns, maxpool, patch_elements, patches, per_channel, planes
from protocol.architecture import INPUT, INPUT_STEP, Architecture, Kind, Layer, Norm, Role, Tensors
from protocol.precision import Float32

PATCH_ELEMENTS: Final = 1 << 24
"""Values of one layer's patches held at once: 64 MB in float32."""

Normalise = Callable[[Layer, Values], Values]
"""From a convolution's sums float32[N, O, H, W] to normalised ones."""
Store = Callable[[Layer, Values], Values]
"""From a row's values to what it stores; ReLU is not applied yet."""


@dataclass(frozen=True)
class Walk:
    """How to compute a network.

    Attributes:
        rows: the table, as it is at the precision in question.
        tensors: of the network, by plain name.
        weights: what the layers multiply by, float32[O, …] by layer name.
        normalise: for convolutions with a normalisation over batches.
        store: for every row but the last.
    """

    rows: Architecture
    tensors: Tensors
    weights: Mapping[str, Float32]
    normalise: Normalise
    store: Store

    def run(self, pictures_NCHW: UInt8) -> Values:
        """The logits of uint8 pictures, float32[N, classes]; on one BLAS thread, as the references."""
        centred = pictures_NCHW.astype(np.float32) - np.float32(self.rows.zero)
        values: dict[str, Values] = {INPUT: centred * np.float32(INPUT_STEP)}
        last_reader = {name: layer.name for layer in self.rows.layers for name in layer.inputs}
        with threadpool_limits(1, user_api="blas"):
            for layer in self.rows.layers:
                y = self._computed(layer, *(values[name] for name in layer.inputs))
                values[layer.name] = self.store(layer, y) if layer.scale else y
                for name in dict.fromkeys(layer.inputs):
                    if last_reader[name] == layer.name:
                        del values[name]
        return values[self.rows.layers[-1].name]

    def _computed(self, layer: Layer, x: Values, *others: Values) -> Values:
        match layer.kind:
            case Kind.CONV:
                y = self._normalised(layer, self._sums(layer, x))
            case Kind.PRELU:
                y = self._prelu(layer, x)
            case Kind.MAXPOOL:
                y = np.concatenate([maxpool(layer, part) for part in _parts(layer, x)])
            case Kind.ADD:
                y = x + others[0]
            case Kind.AVGPOOL:
                y = x.mean(axis=(2, 3), dtype=np.float32)
            case Kind.LINEAR:
                y = x.reshape(len(x), -1) @ self.weights[layer.name].T + self._tensor(layer, Role.BIAS)
            case Kind.RECODE:
                y = x
        return y

    def _sums(self, layer: Layer, x: Values) -> Values:
        weight = columns(layer, self.weights[layer.name])
        return np.concatenate([planes(layer, patches(layer, part) @ weight) for part in _parts(layer, x)])

    def _normalised(self, layer: Layer, sums: Values) -> Values:
        if not layer.norm:
            return sums + per_channel(self._tensor(layer, Role.BIAS))
        if self.rows.norm is Norm.BATCH:
            return self.normalise(layer, sums)
        groups = self.rows.norm_groups(layer.out_shape[0])
        norm = GroupNorm(self._tensor(layer, Role.GAMMA), self._tensor(layer, Role.BETA), groups)
        return normalise_groups(norm, sums).astype(np.float32)

    def _prelu(self, layer: Layer, x: Values) -> Values:
        slope, shift_in, shift_out = (
            per_channel(self._tensor(layer, role)) for role in (Role.SLOPE, Role.SHIFT_IN, Role.SHIFT_OUT)
        )
        v = x - shift_in
        return np.where(v > 0, v, v * slope) + shift_out

    def _tensor(self, layer: Layer, role: Role) -> Float32:
        return self.tensors[f"{layer.name}.{role}"]


def _parts(layer: Layer, x: Values) -> list[Values]:
    """Pictures a few at a time, as patches allow."""
    size = max(1, PATCH_ELEMENTS // patch_elements(layer))
    return [x[start : start + size] for start in range(0, len(x), size)]
