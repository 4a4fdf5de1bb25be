"""The network as numbers: the layer table with every tensor in its place, before any arithmetic is chosen.

A `Graph` holds one node per layer that has weights. The passes turn the nodes from one form into the next, and the
types say which form a pass reads and writes:

    Latent ── quantize_weights ──> Coded ── fold_normalisation ──> FoldedInteger
    Latent ── fold_normalisation ──> FoldedFloat

Shapes: O output channels, X the remaining axes of a weight (I·K·K of a convolution, I of the classifier).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np

from export.arithmetic import Int32, require_supported
from export.errors import ExportError
from protocol.architecture import INPUT, INPUT_STEP, Architecture, Layer, Role, Tensors, TensorSpec
from protocol.precision import Float32, Int8, Precision, binary_step, step_of

MAX_LOG_STEP: Final = 25.0
"""Learned steps lie in [e^−25, e^25], 1.4e−11 to 7.2e10: beyond, products of three of them leave float32."""


@dataclass(frozen=True, slots=True)
class Norm:
    """Normalisation after a convolution, float32[O] each: γ·(v − μ)/√(σ² + ε) + β."""

    gamma_O: Float32
    beta_O: Float32
    mean_O: Float32
    variance_O: Float32


@dataclass(frozen=True, slots=True)
class Latent:
    """Trained numbers: float32 weights; the learned weight step unless the layer is float; normalisation or bias."""

    weight_OX: Float32
    step_O: Float32 | None
    norm: Norm | None
    bias_O: Float32 | None


@dataclass(frozen=True, slots=True)
class Coded:
    """Weights as integers times a step per channel; normalisation or bias as trained."""

    codes_OX: Int8
    step_O: Float32
    norm: Norm | None
    bias_O: Float32 | None


@dataclass(frozen=True, slots=True)
class FoldedFloat:
    """A float layer with its normalisation folded in."""

    weight_OX: Float32
    bias_O: Float32


@dataclass(frozen=True, slots=True)
class FoldedInteger:
    """An integer layer with its normalisation folded in: bias in units of input step · scale."""

    codes_OX: Int8
    scale_O: Float32
    bias_O: Int32


N = TypeVar("N")
M = TypeVar("M")


@dataclass(frozen=True)
class Graph(Generic[N]):
    """A network with nodes of one form.

    Attributes:
        architecture: the layer table.
        precision: what the network is exported at.
        steps: activation step of every scale group, `INPUT` included; empty at fp32.
        nodes: by layer name, for the layers that have weights.
    """

    architecture: Architecture
    precision: Precision
    steps: Mapping[str, np.float32]
    nodes: Mapping[str, N]

    def map(self, change: Callable[[Layer, N], M]) -> "Graph[M]":
        """The graph with every node changed."""
        table = self.architecture.by_name
        nodes = {name: change(table[name], node) for name, node in self.nodes.items()}
        return Graph(self.architecture, self.precision, self.steps, nodes)

    def input_step(self, layer: Layer) -> np.float32:
        """Activation step of a layer's first input."""
        return self.steps[self.architecture.scale_of(layer.inputs[0])]


def build(architecture: Architecture, precision: Precision, tensors: Tensors) -> Graph[Latent]:
    """Put every tensor in its place.

    Raises:
        ExportError: the exporter does not write this precision, or a tensor is missing, of another shape, not
            finite or out of range.
    """
    require_supported(precision)
    for spec in architecture.tensors(precision):
        _check_tensor(tensors, spec)
    nodes = {
        layer.name: _latent(layer, precision, tensors)
        for layer in architecture.layers
        if layer.weight_shape is not None
    }
    return Graph(architecture, precision, _activation_steps(architecture, precision, tensors), nodes)


def _latent(layer: Layer, precision: Precision, tensors: Tensors) -> Latent:
    def tensor(role: Role) -> Float32:
        return tensors[f"{layer.name}.{role}"]

    norm = None
    if layer.norm:
        norm = Norm(tensor(Role.GAMMA), tensor(Role.BETA), tensor(Role.MEAN), tensor(Role.VARIANCE))
    bias_O = None if layer.norm else tensor(Role.BIAS)
    step_O = None
    if not precision.is_float:
        is_binary = precision.bits_of(pinned=layer.pinned) == 1
        step_O = binary_step(tensor(Role.WEIGHT)) if is_binary else step_of(tensor(Role.WEIGHT_LOG_STEP))
    return Latent(tensor(Role.WEIGHT), step_O, norm, bias_O)


def _activation_steps(architecture: Architecture, precision: Precision, tensors: Tensors) -> dict[str, np.float32]:
    if precision.is_float:
        return {}
    learned = {scale: step_of(tensors[f"{scale}.{Role.ACTIVATION_LOG_STEP}"])[0] for scale in architecture.scales}
    return {INPUT: np.float32(INPUT_STEP)} | learned


def _check_tensor(tensors: Tensors, spec: TensorSpec) -> None:
    values: Any = tensors.get(spec.name)
    if values is None:
        raise ExportError(f"tensor {spec.name} is missing")
    if values.shape != spec.shape or values.dtype != np.float32:
        raise ExportError(
            f"tensor {spec.name} is {values.dtype}{list(values.shape)}: expected float32{list(spec.shape)}"
        )
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        raise ExportError(f"tensor {spec.name}: {count} of {values.size} values are NaN or infinite")
    if spec.role is Role.VARIANCE and (values < 0).any():
        raise ExportError(f"tensor {spec.name} holds {values.min():g}: expected variances of at least 0")
    if spec.role in {Role.WEIGHT_LOG_STEP, Role.ACTIVATION_LOG_STEP} and (np.abs(values) > MAX_LOG_STEP).any():
        worst = values[np.abs(values).argmax()]
        raise ExportError(f"tensor {spec.name} holds {worst:g}: expected log steps within ±{MAX_LOG_STEP:g}")
