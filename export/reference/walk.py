"""Walks the table; the subclasses bring what each kind of layer computes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from export.arithmetic import UInt8
from export.graph import GroupNorm
from export.reference.windows import Values, maxpool, patch_elements, per_channel
from protocol.architecture import INPUT, NORM_EPSILON, Architecture, Kind
from protocol.precision import Float32

Operator = Callable[..., Values]
"""Takes a row of the table and the values of its inputs."""

_PATCH_ELEMENTS: Final = 1 << 22
"""Values of one layer's patches held at once: 32 MB in float64."""


class Network(ABC):
    """A reference; `architecture` holds the rows that compute something at its precision."""

    def __init__(self, architecture: Architecture, operators: Mapping[Kind, Operator]) -> None:
        self.architecture = architecture
        self._operators = {Kind.MAXPOOL: maxpool, **operators}
        largest = max(patch_elements(layer) for layer in architecture.layers)
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
            inputs = [values[name] for name in layer.inputs]
            values[layer.name] = self._operators[layer.kind](layer, *inputs)
        del values[INPUT]
        return values

    @abstractmethod
    def _enter(self, pictures_NCHW: UInt8) -> Values:
        """The pictures as the first layer reads them."""


def normalise_groups(norm: GroupNorm, values_NCHW: Values) -> Values:
    """γ·(v − μ)/√(σ² + ε) + β, each picture's own moments over groups of channels (Wu, He, arXiv 1803.08494)."""
    grouped = values_NCHW.reshape(len(values_NCHW), norm.groups, -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=2, keepdims=True) + NORM_EPSILON)
    normal = (centred / deviation).reshape(values_NCHW.shape)
    return normal * per_channel(norm.gamma_O) + per_channel(norm.beta_O)
