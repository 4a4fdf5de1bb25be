"""A network is a table of layers; every part of the house reads this one.

The trainer builds its torch module from the table, the exporter its ONNX graph, the allocator its cost, and the
decoder checks shapes against it: what is trained is, by construction, what is shipped.

Shapes: C channels, H rows, W columns of one picture; O output and I input channels of a weight, K kernel edge.

**Scales.** Every layer that stores activations names a `scale`, the group of activations that share one
quantization step. Both branches of a residual add and its output are one group ("stream"): then the add is exact
integer arithmetic on every processor.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, lru_cache
from math import prod
from typing import Final

from protocol.errors import Malformed, Unsupported
from protocol.precision import Float32, Precision

Shape = tuple[int, ...]
Tensors = dict[str, Float32]
"""The tensors of one model by `TensorSpec.name`."""

INPUT: Final = "input"
"""Name of the picture as a layer input; its scale is fixed at 1/255, the step of an 8-bit picture."""

INPUT_STEP: Final = 1.0 / 255.0
NORM_EPSILON: Final = 1e-5
"""Added to the variance before the square root, as torch's BatchNorm does by default."""

MAX_WIDTH: Final = 4.0
MAX_CLASSES: Final = 10_000
MAX_EDGE: Final = 1024
MAX_INPUT_CHANNELS: Final = 16
"""Bounds on what a peer may make this side allocate: 16 times the widest published ResNet18 is no use on a Pi."""


class Kind(StrEnum):
    """What a layer does."""

    CONV = "conv"
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
    ACTIVATION_LOG_STEP = "activation_log_step"


MOMENTS: Final = frozenset({Role.MEAN, Role.VARIANCE})
"""Pooled through counts, sums and squares; every other role is averaged as a delta."""

PROFILE: Final = MOMENTS | {Role.WEIGHT_LOG_STEP, Role.ACTIVATION_LOG_STEP}
"""Belong to one precision: batch statistics and steps of one width are wrong for another."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model: name, shape, role and the layer or scale group it belongs to."""

    name: str
    shape: Shape
    role: Role
    owner: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the table.

    Attributes:
        name: unique, dotted like torch's.
        kind: what it does.
        inputs: names of the layers it reads, or `INPUT`.
        in_shape: (C, H, W) of the first input; (C,) for the classifier.
        out_shape: (C, H, W) of the output; (C,) after pooling.
        kernel: K; stride and padding in pixels.
        norm: whether normalisation follows the convolution.
        relu: whether a ReLU follows; its activations are then unsigned.
        scale: the scale group of the output, empty for logits.
        pinned: whether its weights stay at 8 bits (first convolution, classifier).
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    norm: bool = False
    relu: bool = False
    scale: str = ""
    pinned: bool = False

    @property
    def weight_shape(self) -> Shape | None:
        """(O, I, K, K) of a convolution, (O, I) of a classifier, None without weights."""
        if self.kind is Kind.CONV:
            return (self.out_shape[0], self.in_shape[0], self.kernel, self.kernel)
        return (self.out_shape[0], self.in_shape[0]) if self.kind is Kind.LINEAR else None

    @property
    def multiply_adds(self) -> int:
        """Multiply-accumulate operations for one picture."""
        shape = self.weight_shape
        return 0 if shape is None else prod(shape) * prod(self.out_shape[1:])

    @property
    def signed(self) -> bool:
        """Whether its stored activations may be negative (a residual branch before the add)."""
        return self.kind is Kind.CONV and not self.relu

    @property
    def parameters(self) -> int:
        """Trained parameters, quantization steps not counted."""
        weights = 0 if self.weight_shape is None else prod(self.weight_shape)
        return weights + (2 * self.out_shape[0] if self.norm else 0) + self._bias

    @property
    def _bias(self) -> int:
        return self.out_shape[0] if self.kind is Kind.LINEAR else 0


@dataclass(frozen=True)
class Architecture:
    """A network: its `spec` (the string that travels), its input (C, H, W), its classes and its layers in order."""

    spec: str
    input_shape: Shape
    classes: int
    layers: tuple[Layer, ...] = field(repr=False)

    @cached_property
    def by_name(self) -> dict[str, Layer]:
        """Layers by name."""
        return {layer.name: layer for layer in self.layers}

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

    def activation_bits(self, scale: str, precision: Precision) -> int:
        """Bits of the activations of a scale group: the picture and the classifier's input stay at 8."""
        return 8 if scale in {INPUT, "pool"} and not precision.is_float else precision.activation_bits

    def scale_of(self, name: str) -> str:
        """Scale group of a layer's output; `INPUT` for the picture."""
        return INPUT if name == INPUT else self.by_name[name].scale

    @lru_cache(maxsize=64)  # noqa: B019 (architectures are few and cached themselves)
    def tensors(self, precision: Precision) -> tuple[TensorSpec, ...]:
        """Every tensor of a model at `precision`, in wire order.

        Shared tensors (weights, gains, offsets, biases) come first and are the same for every precision; the
        precision's own profile (moments and learned steps) follows. 1-bit weights have no learned step: theirs
        is mean|w|. Steps travel as natural logarithms, so that they stay positive and average geometrically.
        """
        specs = sorted(self._all_tensors(precision), key=lambda spec: spec.role in PROFILE)
        return tuple(specs)

    def _all_tensors(self, precision: Precision) -> Iterator[TensorSpec]:
        for layer in self.layers:
            if layer.weight_shape is None:
                continue
            channels = (layer.out_shape[0],)
            yield TensorSpec(f"{layer.name}.weight", layer.weight_shape, Role.WEIGHT, layer.name)
            if layer.norm:
                for role in (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE):
                    yield TensorSpec(f"{layer.name}.{role}", channels, role, layer.name)
            if layer.kind is Kind.LINEAR:
                yield TensorSpec(f"{layer.name}.bias", channels, Role.BIAS, layer.name)
            if 1 < precision.bits_of(pinned=layer.pinned) <= 8:
                role = Role.WEIGHT_LOG_STEP
                yield TensorSpec(f"{layer.name}.{role}", channels, role, layer.name)
        if not precision.is_float:
            for scale in self.scales:
                role = Role.ACTIVATION_LOG_STEP
                yield TensorSpec(f"{scale}.{role}", (1,), role, scale)


# --- ResNet18: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385 ---

STEMS: Final = ("3x3", "7x7")
_STAGES: Final = ((64, 1), (128, 2), (256, 2), (512, 2))
_BLOCKS: Final = 2


def resnet18(
    *, width: float = 1.0, stem: str = "3x3", input_shape: Shape = (3, 32, 32), classes: int = 10
) -> Architecture:
    """ResNet18 as a table.

    Args:
        width: multiplier of every channel count, rounded to a multiple of 4 channels, at least 4.
        stem: `3x3` for small pictures (stride 1, no pooling), `7x7` for 224×224 (stride 2, max pooling).
        input_shape: (C, H, W) of a picture.
        classes: number of logits.

    Returns:
        The table; at full width 11.17 M parameters with the 3×3 stem and 10 classes, 11.69 M with the 7×7 stem
        and 1000 classes.

    Raises:
        Unsupported: a value outside the named bounds.
    """
    _check_bounds(width, stem, input_shape, classes)
    spec = f"resnet18:width={width:g},stem={stem},input={'x'.join(map(str, input_shape))},classes={classes}"
    builder = _Builder(input_shape)
    channels = [_scaled(base, width) for base, _ in _STAGES]
    if stem == "3x3":
        x = builder.conv("stem.conv", INPUT, channels[0], 3, 1, relu=True, scale="stream1", pinned=True)
    else:
        x = builder.conv("stem.conv", INPUT, channels[0], 7, 2, relu=True, scale="stream1", pinned=True)
        x = builder.maxpool("stem.pool", x, 3, 2)
    for stage, (_, stride) in enumerate(_STAGES, start=1):
        for block in range(_BLOCKS):
            x = _basic_block(builder, x, f"layer{stage}.{block}", channels[stage - 1], stride if block == 0 else 1)
    x = builder.avgpool("pool", x, scale="pool")
    builder.linear("classifier", x, classes)
    return Architecture(spec, input_shape, classes, tuple(builder.layers.values()))


def _basic_block(builder: "_Builder", x: str, name: str, channels: int, stride: int) -> str:
    """Two 3×3 convolutions and a shortcut, projected by a 1×1 convolution where the shape changes."""
    stream = f"stream{name.removeprefix('layer').split('.')[0]}"
    y = builder.conv(f"{name}.conv1", x, channels, 3, stride, relu=True, scale=f"{name}.mid")
    y = builder.conv(f"{name}.conv2", y, channels, 3, 1, relu=False, scale=stream)
    if stride != 1 or builder.layers[x].out_shape[0] != channels:
        x = builder.conv(f"{name}.shortcut", x, channels, 1, stride, relu=False, scale=stream)
    return builder.add(f"{name}.add", y, x, scale=stream)


class _Builder:
    """Appends layers and keeps shapes."""

    def __init__(self, input_shape: Shape) -> None:
        self.input_shape = input_shape
        self.layers: dict[str, Layer] = {}

    def _shape(self, name: str) -> Shape:
        return self.input_shape if name == INPUT else self.layers[name].out_shape

    def _append(self, layer: Layer) -> str:
        self.layers[layer.name] = layer
        return layer.name

    def conv(
        self,
        name: str,
        x: str,
        channels: int,
        kernel: int,
        stride: int,
        *,
        relu: bool,
        scale: str,
        pinned: bool = False,
    ) -> str:
        """A convolution with "same" padding and normalisation."""
        shape, padding = self._shape(x), kernel // 2
        out = (channels, *(_pooled(edge, kernel, stride, padding) for edge in shape[1:]))
        return self._append(
            Layer(name, Kind.CONV, (x,), shape, out, kernel, stride, padding, True, relu, scale, pinned)
        )

    def maxpool(self, name: str, x: str, kernel: int, stride: int) -> str:
        """Max pooling, which keeps its input's scale."""
        shape, padding = self._shape(x), kernel // 2
        out = (shape[0], *(_pooled(edge, kernel, stride, padding) for edge in shape[1:]))
        scale = self.layers[x].scale
        return self._append(Layer(name, Kind.MAXPOOL, (x,), shape, out, kernel, stride, padding, scale=scale))

    def add(self, name: str, left: str, right: str, *, scale: str) -> str:
        """A residual add with ReLU."""
        shape = self._shape(left)
        return self._append(Layer(name, Kind.ADD, (left, right), shape, shape, relu=True, scale=scale))

    def avgpool(self, name: str, x: str, *, scale: str) -> str:
        """Global average pooling."""
        shape = self._shape(x)
        return self._append(Layer(name, Kind.AVGPOOL, (x,), shape, shape[:1], relu=True, scale=scale))

    def linear(self, name: str, x: str, classes: int) -> str:
        """The classifier, pinned at 8 bits."""
        return self._append(Layer(name, Kind.LINEAR, (x,), self._shape(x), (classes,), pinned=True))


def _pooled(edge: int, kernel: int, stride: int, padding: int) -> int:
    return (edge + 2 * padding - kernel) // stride + 1


def _scaled(channels: int, width: float) -> int:
    return max(4, 4 * round(channels * width / 4))


def _check_bounds(width: float, stem: str, input_shape: Shape, classes: int) -> None:
    if not 0.01 <= width <= MAX_WIDTH:
        raise Unsupported(f"resnet18 width {width}: expected 0.01 to {MAX_WIDTH}")
    if stem not in STEMS:
        raise Unsupported(f"resnet18 stem {stem!r}: expected one of {STEMS}")
    if len(input_shape) != 3 or not 1 <= input_shape[0] <= MAX_INPUT_CHANNELS:
        raise Unsupported(f"resnet18 input {input_shape}: expected (C, H, W) with 1 to {MAX_INPUT_CHANNELS} channels")
    if not all(8 <= edge <= MAX_EDGE for edge in input_shape[1:]):
        raise Unsupported(f"resnet18 input {input_shape}: expected edges of 8 to {MAX_EDGE} pixels")
    if not 2 <= classes <= MAX_CLASSES:
        raise Unsupported(f"resnet18 classes {classes}: expected 2 to {MAX_CLASSES}")


_SPEC = re.compile(
    r"resnet18:width=(?P<width>\d(?:\.\d{1,6})?),stem=(?P<stem>[37]x[37]),"
    r"input=(?P<c>\d{1,3})x(?P<h>\d{1,5})x(?P<w>\d{1,5}),classes=(?P<classes>\d{1,6})",
    re.ASCII,
)


@lru_cache(maxsize=32)
def parse(spec: str) -> Architecture:
    """Build the architecture that a spec string names.

    Raises:
        Malformed: the string is not a spec in canonical form.
        Unsupported: its values are out of bounds.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise Malformed(
            f"architecture {spec[:80]!r}: expected for example resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"
        )
    shape = (int(match["c"]), int(match["h"]), int(match["w"]))
    network = resnet18(
        width=float(match["width"]), stem=match["stem"], input_shape=shape, classes=int(match["classes"])
    )
    if network.spec != spec:
        raise Malformed(f"architecture {spec[:80]!r}: not canonical, expected {network.spec!r}")
    return network
