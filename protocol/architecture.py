"""A network is a table of layers; every part of the house reads this one.

The trainer builds its torch module from the table, the exporter its ONNX graph, the allocator its cost, and the
decoder checks shapes against it: what is trained is, by construction, what is shipped. `protocol.networks` has the
tables.

Shapes: C channels, H rows, W columns of one picture; O output and I input channels of a weight, K kernel edge.

**Scales.** Every layer that stores activations names a `scale`, the group of activations that share one
quantization step. Both branches of a residual add and its output are one group ("stream"): then the add is exact
integer arithmetic on every processor. Streams are `wide`: they keep 8 bits at every precision, and a `RECODE` row
narrows them in front of a convolution. At 8 bits and above that row has nothing to do, and `Architecture.at` drops it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import sha256
from math import gcd, prod
from typing import Final

from protocol.precision import Float32, Precision

Shape = tuple[int, ...]
Tensors = dict[str, Float32]
"""The tensors of one model by `TensorSpec.name`."""

INPUT: Final = "input"
"""Name of the picture as a layer input; its scale is fixed at 1/255, the step of an 8-bit picture, and its zero is
`Architecture.zero`."""

INPUT_STEP: Final = 1.0 / 255.0
NORM_EPSILON: Final = 1e-5
"""Added to the variance before the square root, as torch's BatchNorm does by default."""

MAX_NORM_GROUPS: Final = 8
MIN_GROUP_CHANNELS: Final = 4
"""GroupNorm over fewer channels than this would leave the groups' statistics to a handful of pixels."""


class Kind(StrEnum):
    """What a layer does."""

    CONV = "conv"
    RECODE = "recode"
    PRELU = "prelu"
    MAXPOOL = "maxpool"
    ADD = "add"
    AVGPOOL = "avgpool"
    LINEAR = "linear"


class Role(StrEnum):
    """What a tensor is, which decides how it is merged and coded."""

    WEIGHT = "weight"
    BIAS = "bias"
    GAMMA = "gamma"
    BETA = "beta"
    MEAN = "mean"
    VARIANCE = "variance"
    WEIGHT_LOG_STEP = "weight_log_step"
    CODE_LOG_STEP = "code_log_step"
    WIDTH_LOG_SCALE = "width_log_scale"
    ACTIVATION_LOG_STEP = "activation_log_step"
    ACTIVATION_OFFSET = "activation_offset"
    SLOPE = "slope"
    SHIFT_IN = "shift_in"
    SHIFT_OUT = "shift_out"


LOG_STEPS: Final = frozenset({Role.WEIGHT_LOG_STEP, Role.CODE_LOG_STEP, Role.WIDTH_LOG_SCALE, Role.ACTIVATION_LOG_STEP})
"""Natural logarithms of steps and scales: they stay positive, and their mean over devices is a geometric one."""

MOMENTS: Final = frozenset({Role.MEAN, Role.VARIANCE})
"""Pooled through counts, sums and squares; every other role is averaged as a delta."""

PROFILE: Final = MOMENTS | {
    Role.WEIGHT_LOG_STEP,
    Role.WIDTH_LOG_SCALE,
    Role.ACTIVATION_LOG_STEP,
    Role.ACTIVATION_OFFSET,
}
"""Belong to one precision: batch statistics and steps of one width are wrong for another."""


class Norm(StrEnum):
    """What follows a convolution that is normalised.

    BATCH: statistics of the training pictures, folded away at export (S. Ioffe, C. Szegedy, ICML 2015,
    arXiv 1502.03167). GROUP: each picture's own statistics over groups of channels, with standardized weights; the
    same at every width and on every device, but computed at inference (Y. Wu, K. He, ECCV 2018, arXiv 1803.08494;
    S. Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    arXiv 1903.10520).
    """

    BATCH = "batch"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model.

    Attributes:
        name: unique among the tensors of one payload.
        shape: of the tensor.
        role: what it is.
        owner: the layer or scale group it belongs to.
        profile: the precision whose profile it is part of, empty for shared tensors.
    """

    name: str
    shape: Shape
    role: Role
    owner: str
    profile: str = ""

    @property
    def plain_name(self) -> str:
        """Its name within its profile."""
        return f"{self.owner}.{self.role}"

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the table.

    RECODE stores its input again at the precision's activation bits, in its own scale group: unsigned after a ReLU
    (`relu`), else with a learned zero (LSQ+) or, at 1 bit, as ±step around a learned threshold per channel.
    PRELU is y = max(v, 0) + slope·min(v, 0) + shift_out with v = x − shift_in, each learned per channel (Z. Liu et
    al., "ReActNet", ECCV 2020, arXiv 2003.03488). LINEAR reads its input as one row, channel by channel.

    Attributes:
        name: unique, dotted like torch's.
        kind: what it does.
        inputs: names of the layers it reads, or `INPUT`.
        in_shape: (C, H, W) of the first input; (C,) after pooling or a linear layer.
        out_shape: (C, H, W) of the output; (C,) after pooling and for linear layers.
        kernel: K; stride and padding in pixels.
        groups: of a convolution, 1 or (depthwise) the number of channels.
        norm: whether normalisation follows the convolution; if not, it has a bias.
        relu: whether a ReLU follows; its activations are then unsigned.
        scale: the scale group of the output, empty for logits.
        wide: whether its activations keep 8 bits at every precision (streams and what the classifier reads).
        pinned: whether its weights stay at 8 bits (first convolution, projections, classifier).
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    norm: bool = False
    relu: bool = False
    scale: str = ""
    wide: bool = False
    pinned: bool = False

    @property
    def weight_shape(self) -> Shape | None:
        """(O, I / groups, K, K) of a convolution, (O, I) of a linear layer, None without weights."""
        if self.kind is Kind.CONV:
            return (self.out_shape[0], self.in_shape[0] // self.groups, self.kernel, self.kernel)
        return (self.out_shape[0], prod(self.in_shape)) if self.kind is Kind.LINEAR else None

    @property
    def multiply_adds(self) -> int:
        """Multiply-accumulate operations for one picture."""
        shape = self.weight_shape
        return 0 if shape is None else prod(shape) * prod(self.out_shape[1:])

    @property
    def signed(self) -> bool:
        """Whether its stored activations may be negative, as on a residual branch before the add."""
        return not self.relu and self.kind is not Kind.MAXPOOL and bool(self.scale)

    @property
    def has_bias(self) -> bool:
        """Whether it has weights and no normalisation that would bring an offset."""
        return self.weight_shape is not None and not self.norm

    @property
    def parameters(self) -> int:
        """Trained parameters, those of quantization not counted."""
        weights = 0 if self.weight_shape is None else prod(self.weight_shape)
        per_channel = 2 * self.norm + self.has_bias + 3 * (self.kind is Kind.PRELU)
        return weights + per_channel * self.out_shape[0]


@dataclass(frozen=True)
class Architecture:
    """A network.

    Attributes:
        spec: the string that travels and that `protocol.networks.parse` reads.
        input_shape: (C, H, W) of a picture.
        classes: number of logits.
        layers: the rows, in the order of computation.
        norm: what normalises its convolutions.
        nested: whether the weight codes of every width are the leading bits of one 8-bit code
            (`protocol.weights`).
        zero: the grey, 0 to 255, that stands for 0 in a picture: a network reads (pixel − zero)/255, and so sees this
            grey where a window leaves the picture. Black, unless it was trained elsewhere on normalised pictures.
    """

    spec: str
    input_shape: Shape
    classes: int
    layers: tuple[Layer, ...] = field(repr=False)
    norm: Norm = Norm.BATCH
    nested: bool = False
    zero: int = 0

    @lru_cache(maxsize=64)  # noqa: B019 (architectures are few and cached themselves)
    def at(self, precision: Precision) -> "Architecture":
        """The rows that compute something at `precision`: without `RECODE` where activations have 8 bits or more."""
        if precision.activation_bits < 8:
            return self
        source = {layer.name: layer.inputs[0] for layer in self.layers if layer.kind is Kind.RECODE}
        kept = (layer for layer in self.layers if layer.name not in source)
        layers = (replace(layer, inputs=tuple(source.get(name, name) for name in layer.inputs)) for layer in kept)
        return replace(self, layers=tuple(layers))

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def description(self) -> str:
        """The table as text: a line for the network and one for each row, of attributes that are not at their default.

        An attribute that is added later thus leaves the text of tables that do not use it as it is.
        """
        return "\n".join([_unusual(self, "layers"), *map(_unusual, self.layers)])

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the description, 32 bytes: two releases may read the same spec as different layers."""
        return sha256(self.description.encode()).digest()

    @cached_property
    def parameters(self) -> int:
        """Trained parameters of the whole network."""
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-accumulate operations for one picture."""
        return sum(layer.multiply_adds for layer in self.layers)

    @cached_property
    def scales(self) -> tuple[str, ...]:
        """Scale groups in order of first use, the input's excluded."""
        return tuple(dict.fromkeys(layer.scale for layer in self.layers if layer.scale))

    @cached_property
    def _wide_scales(self) -> frozenset[str]:
        return frozenset({INPUT, *(layer.scale for layer in self.layers if layer.wide)})

    def activation_bits(self, scale: str, precision: Precision) -> int:
        """Bits of the activations of a scale group: wide groups and the picture keep 8."""
        bits = precision.activation_bits
        return max(bits, 8) if scale in self._wide_scales else bits

    def scale_of(self, name: str) -> str:
        """Scale group of a layer's output; `INPUT` for the picture."""
        return INPUT if name == INPUT else self.by_name[name].scale

    def norm_groups(self, channels: int) -> int:
        """How many groups of channels GroupNorm makes of `channels`."""
        return gcd(channels // MIN_GROUP_CHANNELS, MAX_NORM_GROUPS) if channels % MIN_GROUP_CHANNELS == 0 else 1

    def standardizes(self, layer: Layer) -> bool:
        """Whether a layer's weights are standardized before they are quantized."""
        return layer.norm and self.norm is Norm.GROUP

    @lru_cache(maxsize=64)  # noqa: B019
    def tensors(self, *precisions: Precision) -> tuple[TensorSpec, ...]:
        """Every tensor of a model, in wire order.

        Shared tensors (weights, gains, offsets, biases) come first and are the same for every precision; then the
        profile (moments and learned steps) of each precision. The first precision's tensors have plain names, those
        of any further one are named `<precision>/<name>`. 1-bit weights have no learned step: theirs is mean|w|.
        """
        specs = [spec for spec in self._all_tensors(precisions[0]) if spec.role not in PROFILE]
        for number, precision in enumerate(precisions):
            prefix = f"{precision}/" if number else ""
            profile = (spec for spec in self._all_tensors(precision) if spec.role in PROFILE)
            specs.extend(replace(spec, name=f"{prefix}{spec.name}", profile=str(precision)) for spec in profile)
        return tuple(specs)

    def _all_tensors(self, precision: Precision) -> Iterator[TensorSpec]:
        """By layer; the rows that `precision` drops hold nothing but their step."""
        for layer in self.layers:
            yield from self._layer_tensors(layer, precision)
        if precision.activation_bits > 8:
            return
        rows = self.at(precision)
        for scale in rows.scales:
            yield TensorSpec(f"{scale}.{Role.ACTIVATION_LOG_STEP}", (1,), Role.ACTIVATION_LOG_STEP, scale)
        for layer in rows.layers:
            if layer.kind is Kind.RECODE and layer.signed:
                shape = (layer.out_shape[0] if precision.activation_bits == 1 else 1,)
                yield TensorSpec(f"{layer.name}.{Role.ACTIVATION_OFFSET}", shape, Role.ACTIVATION_OFFSET, layer.name)

    def _layer_tensors(self, layer: Layer, precision: Precision) -> Iterator[TensorSpec]:
        channels = (layer.out_shape[0],)
        if layer.kind is Kind.PRELU:
            for role in (Role.SLOPE, Role.SHIFT_IN, Role.SHIFT_OUT):
                yield TensorSpec(f"{layer.name}.{role}", channels, role, layer.name)
        if layer.weight_shape is None:
            return
        yield TensorSpec(f"{layer.name}.weight", layer.weight_shape, Role.WEIGHT, layer.name)
        for role in self._per_channel_roles(layer, precision):
            yield TensorSpec(f"{layer.name}.{role}", channels, role, layer.name)

    def _per_channel_roles(self, layer: Layer, precision: Precision) -> Iterator[Role]:
        if layer.norm:
            yield from (Role.GAMMA, Role.BETA)
            if self.norm is Norm.BATCH:
                yield from (Role.MEAN, Role.VARIANCE)
        if layer.has_bias:
            yield Role.BIAS
        bits = precision.bits_of(pinned=layer.pinned)
        if self.nested:
            yield Role.CODE_LOG_STEP
            if bits < 8:
                yield Role.WIDTH_LOG_SCALE
        elif 1 < bits <= 16:
            yield Role.WEIGHT_LOG_STEP


def _unusual(row: Architecture | Layer, *without: str) -> str:
    """Attributes that are not at their default, as name=value in the order of their names."""
    values = {item.name: getattr(row, item.name) for item in fields(row) if item.name not in without}
    defaults = {item.name: item.default for item in fields(row)}
    return " ".join(f"{name}={value}" for name, value in sorted(values.items()) if value != defaults[name])
