"""The network as numbers: the layer table with every tensor in its place, before any arithmetic is chosen.

A `Graph` holds one node per layer that has weights. The passes turn the nodes from one form into the next, and the
types say which form a pass reads and writes:

    After ── quantize_weights ──> Coded ── fold_integer ──> FoldedInteger
    After ── float_weights ─────> Latent ── fold_float ───> FoldedFloat

Shapes: O output channels, X the remaining axes of a weight (I·K·K of a convolution, I of a linear layer), C channels
of activations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np

from export.arithmetic import (
    Coding,
    Int32,
    binary_coding,
    offset_coding,
    offset_zero,
    picture_coding,
    plain_coding,
    require_supported,
)
from export.errors import ExportError
from protocol.architecture import INPUT, LOG_STEPS, Architecture, Kind, Layer, Norm, Role, Tensors, TensorSpec
from protocol.precision import Float32, Int8, Precision, step_of

MAX_LOG_STEP: Final = 25.0
"""Learned steps lie in [e^−25, e^25], 1.4e−11 to 7.2e10: beyond, products of three of them leave float32."""


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Normalisation by known moments, float32[O] each: γ·(v − μ)/√(σ² + ε) + β."""

    gamma_O: Float32
    beta_O: Float32
    mean_O: Float32
    variance_O: Float32


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """The same by each picture's own moments, over `groups` groups of channels."""

    gamma_O: Float32
    beta_O: Float32
    groups: int


@dataclass(frozen=True, slots=True)
class Bias:
    """Plain addition, float32[O]."""

    bias_O: Float32


After = BatchNorm | GroupNorm | Bias
"""What follows a layer's sums of products."""


@dataclass(frozen=True, slots=True)
class Latent:
    """Float weights, standardized where the table says so."""

    weight_OX: Float32
    after: After


@dataclass(frozen=True, slots=True)
class Coded:
    """Weights as integers times a step per channel."""

    codes_OX: Int8
    step_O: Float32
    after: After


@dataclass(frozen=True, slots=True)
class FoldedFloat:
    """A float layer; `norm` is what could not be folded, and the bias is then 0."""

    weight_OX: Float32
    bias_O: Float32
    norm: GroupNorm | None


@dataclass(frozen=True, slots=True)
class FoldedInteger:
    """An integer layer, bias in units of input step · scale; `norm` is what could not be folded, the bias then 0."""

    codes_OX: Int8
    scale_O: Float32
    bias_O: Int32
    norm: GroupNorm | None


@dataclass(frozen=True, slots=True)
class Prelu:
    """y = max(v, 0) + slope·min(v, 0) + shift_out with v = x − shift_in, float32[C] each."""

    slope_C: Float32
    shift_in_C: Float32
    shift_out_C: Float32


N = TypeVar("N")
M = TypeVar("M")


@dataclass(frozen=True)
class Graph(Generic[N]):
    """A network with nodes of one form.

    Attributes:
        architecture: the rows that compute something at this precision.
        precision: what the network is exported at.
        nodes: by layer name, for the layers that have weights.
        codings: how every layer but the last stores its output, by layer name, `INPUT` included; empty at fp32.
        prelus: by layer name.
        thresholds_C: of the rows that narrow a signed stream to 1 bit, float32[C] by layer name.
    """

    architecture: Architecture
    precision: Precision
    nodes: Mapping[str, N]
    codings: Mapping[str, Coding]
    prelus: Mapping[str, Prelu]
    thresholds_C: Mapping[str, Float32]

    def map(self, change: Callable[[Layer, N], M]) -> "Graph[M]":
        """The graph with every node changed."""
        table = self.architecture.by_name
        nodes = {name: change(table[name], node) for name, node in self.nodes.items()}
        return Graph(self.architecture, self.precision, nodes, self.codings, self.prelus, self.thresholds_C)

    def coding_in(self, layer: Layer) -> Coding:
        """How a layer's first input is stored."""
        return self.codings[layer.inputs[0]]


def build(architecture: Architecture, precision: Precision, tensors: Tensors) -> Graph[After]:
    """Put every tensor but the weights in its place, after checking them all.

    Raises:
        ExportError: the exporter does not write this precision, or a tensor is missing, of another shape, not
            finite or out of range.
    """
    require_supported(precision, nested=architecture.nested)
    for spec in architecture.tensors(precision):
        _check_tensor(tensors, spec)
    rows = architecture.at(precision)

    def tensor(layer: Layer, role: Role) -> Float32:
        return tensors[f"{layer.name}.{role}"]

    def after(layer: Layer) -> After:
        if not layer.norm:
            return Bias(tensor(layer, Role.BIAS))
        gamma_O, beta_O = tensor(layer, Role.GAMMA), tensor(layer, Role.BETA)
        if rows.norm is Norm.GROUP:
            return GroupNorm(gamma_O, beta_O, rows.norm_groups(layer.out_shape[0]))
        return BatchNorm(gamma_O, beta_O, tensor(layer, Role.MEAN), tensor(layer, Role.VARIANCE))

    def prelu(layer: Layer) -> Prelu:
        return Prelu(*(tensor(layer, role) for role in (Role.SLOPE, Role.SHIFT_IN, Role.SHIFT_OUT)))

    return Graph(
        rows,
        precision,
        nodes={layer.name: after(layer) for layer in rows.layers if layer.weight_shape is not None},
        codings={} if precision.is_float else _learned_codings(rows, precision, tensors),
        prelus={layer.name: prelu(layer) for layer in rows.layers if layer.kind is Kind.PRELU},
        thresholds_C={row.name: tensor(row, Role.ACTIVATION_OFFSET) for row in thresholded(rows, precision)},
    )


def thresholded(rows: Architecture, precision: Precision) -> tuple[Layer, ...]:
    """The rows that narrow a signed stream to 1 bit, each with a threshold per channel."""
    return tuple(row for row in rows.layers if is_signed_recode(row) and precision.activation_bits == 1)


def is_signed_recode(layer: Layer) -> bool:
    """Whether a row narrows a signed stream."""
    return layer.kind is Kind.RECODE and layer.signed


def codings(
    rows: Architecture, precision: Precision, steps: Mapping[str, np.float32], zeros: Mapping[str, int]
) -> dict[str, Coding]:
    """How every row but the last stores its output, and the picture.

    Args:
        rows: those of `precision`.
        precision: not fp32.
        steps: activation step of every scale group.
        zeros: of the rows that narrow a signed stream to 2 bits or more, by row name.
    """
    made = {INPUT: picture_coding(rows.zero)}
    for layer in rows.layers:
        if not layer.scale:
            continue
        step, bits = steps[layer.scale], rows.activation_bits(layer.scale, precision)
        if not is_signed_recode(layer):
            made[layer.name] = plain_coding(step, bits, signed=layer.signed)
        else:
            made[layer.name] = binary_coding(step) if bits == 1 else offset_coding(step, bits, zeros[layer.name])
    return made


def zeroed(rows: Architecture, precision: Precision) -> tuple[Layer, ...]:
    """The rows that narrow a signed stream to 2 bits or more, each with a learned zero."""
    return tuple(row for row in rows.layers if is_signed_recode(row) and precision.activation_bits > 1)


def _learned_codings(rows: Architecture, precision: Precision, tensors: Tensors) -> dict[str, Coding]:
    steps = {scale: step_of(tensors[f"{scale}.{Role.ACTIVATION_LOG_STEP}"])[0] for scale in rows.scales}
    zeros = {
        row.name: offset_zero(
            steps[row.scale],
            rows.activation_bits(row.scale, precision),
            tensors[f"{row.name}.{Role.ACTIVATION_OFFSET}"][0],
        )
        for row in zeroed(rows, precision)
    }
    return codings(rows, precision, steps, zeros)


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
    if spec.role in LOG_STEPS and (np.abs(values) > MAX_LOG_STEP).any():
        worst = values[np.abs(values).argmax()]
        raise ExportError(f"tensor {spec.name} holds {worst:g}: expected log steps within ±{MAX_LOG_STEP:g}")
