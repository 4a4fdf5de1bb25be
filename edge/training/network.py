"""The table as a differentiable function whose forward pass mirrors the integer network.

    convolution of fake-quantized weights → normalisation → quantizer of its scale group (which is the ReLU too)
    residual branches: the stream's shared step, signed;  add: the same step;  recode: the narrower grid of its own

Where there are no activation bits there are no activation quantizers. Convolutions run in channels_last, the faster
layout on processors.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from edge.training.quantizers import (
    nested_weight,
    quantize_activation,
    quantize_sign,
    quantize_weight,
    quantize_with_offset,
    standardized,
    step_of,
    unit_of,
)
from edge.training.task import TrainerError
from protocol.architecture import (
    INPUT,
    INPUT_STEP,
    LOG_STEPS,
    MOMENTS,
    NORM_EPSILON,
    Architecture,
    Kind,
    Layer,
    Norm,
    Role,
    Tensors,
    TensorSpec,
)
from protocol.precision import Float32, Precision
from protocol.weights import require_nested

Normalise = Callable[[Layer, Tensor], Tensor]
"""Normalises the output of a convolution, float32[N, C, H, W], over batches; `Network.by_batch` and
`Network.by_moments` are two. GroupNorm has only one way and asks none."""

Activate = Callable[[Layer, Tensor], Tensor]
"""What happens to a layer's output before it is stored; `Network.activate` is the usual one."""

Weigh = Callable[[Layer], Tensor]
"""The weight that a layer computes with, float32 in its shape; `Network.weight` is the usual one."""


class Network:
    """A network at one precision.

    Attributes:
        architecture: its table.
        precision: its bits.
        specs: `architecture.tensors(precision)`.
        values: every tensor of `specs` by name; all but moments are trained.
    """

    def __init__(
        self, architecture: Architecture, precision: Precision, tensors: Mapping[str, Float32 | Tensor]
    ) -> None:
        """A network over copies of arrays; tensors of torch it takes as they are.

        Raises:
            TrainerError: one is missing or has another shape than the table says.
            Unsupported: nested codes have no such width.
        """
        if architecture.nested and precision.weight_bits < 32:
            require_nested(precision.weight_bits)
        self.architecture, self.precision = architecture, precision
        self.specs = architecture.tensors(precision)
        self.values = {spec.name: trained(spec, tensors) for spec in self.specs}
        self._rows = architecture.at(precision)
        self._spent = _spent(self._rows)

    @classmethod
    def over(cls, architecture: Architecture, precision: Precision, values: dict[str, Tensor]) -> Self:
        """A network over these very tensors, so that networks of several precisions can share some."""
        return cls(architecture, precision, values)

    def tensors(self) -> Tensors:
        """Copies of all tensors, float32 in the table's shapes."""
        return {name: np.array(value.detach().cpu().numpy(), order="C") for name, value in self.values.items()}

    def check_steps(self) -> None:
        """Check that every step and scale is one.

        Raises:
            TrainerError: one is zero, infinite or no number; the message names its tensor and the value.
        """
        for spec in self.specs:
            if spec.role in LOG_STEPS:
                steps = step_of(self.values[spec.name].detach())
                wrong = steps[~(steps.isfinite() & (steps >= torch.finfo(steps.dtype).tiny))]
                if len(wrong):
                    raise TrainerError(
                        f"tensor {spec.name} stands for a step of {float(wrong[0]):g}: expected a positive finite"
                        " number; the learning rate may be too high"
                    )

    def __call__(
        self,
        pictures_NCHW: Tensor,
        normalise: Normalise | None = None,
        activate: Activate | None = None,
        weigh: Weigh | None = None,
    ) -> Tensor:
        """Logits float32[N, classes] of uint8 pictures, by default as the deployed network computes them."""
        normalise, activate, weigh = normalise or self.by_moments, activate or self.activate, weigh or self.weight
        outputs = {INPUT: _levels(pictures_NCHW, self.architecture.zero)}
        for layer in self._rows.layers:
            inputs = [outputs[name] for name in layer.inputs]
            outputs[layer.name] = self._apply(layer, inputs, normalise, activate, weigh)
            for name in self._spent[layer.name]:
                del outputs[name]
        return outputs[self._rows.layers[-1].name]

    def _apply(
        self, layer: Layer, inputs: list[Tensor], normalise: Normalise, activate: Activate, weigh: Weigh
    ) -> Tensor:
        x = inputs[0]
        match layer.kind:
            case Kind.CONV:
                x = _convolve(layer, self._padded(layer, x), weigh(layer), self._bias(layer))
                x = self._normalised(layer, x, normalise) if layer.norm else x
            case Kind.PRELU:
                x = self._prelu(layer, x)
            case Kind.MAXPOOL:
                return functional.max_pool2d(x, layer.kernel, layer.stride, layer.padding)
            case Kind.ADD:
                x = x + inputs[1]
            case Kind.AVGPOOL:
                x = x.mean((2, 3))
            case Kind.LINEAR:
                x = _Flat.apply(x) if x.dim() > 2 else x  # type: ignore[no-untyped-call]
                x = functional.linear(x, weigh(layer), self._bias(layer))
        return activate(layer, x) if layer.scale else x

    def weight(self, layer: Layer) -> Tensor:
        """A layer's fake-quantized weight: the codes of `protocol.weights.coded_weight` times their step."""
        bits, latent = self.weight_bits(layer.name), self.latent(layer)
        log_step_O, log_scale_O = self._weight_steps(layer)
        if self.architecture.nested and bits < 32:
            assert log_step_O is not None
            return nested_weight(latent, log_step_O, log_scale_O, bits)
        return quantize_weight(latent, log_step_O, bits)

    def latent(self, layer: Layer) -> Tensor:
        """A layer's weight before it is quantized, standardized where the table says so."""
        weight = self.value(layer.name, Role.WEIGHT)
        return standardized(weight) if self.architecture.standardizes(layer) else weight

    def activate(self, layer: Layer, x: Tensor) -> Tensor:
        """Quantize to the layer's scale group; without activation bits the ReLU alone."""
        bits = self.architecture.activation_bits(layer.scale, self.precision)
        if bits > 8:
            return x.relu() if layer.relu else x
        log_step = self.value(layer.scale, Role.ACTIVATION_LOG_STEP)
        if layer.kind is Kind.RECODE and layer.signed:
            offset = self.value(layer.name, Role.ACTIVATION_OFFSET)
            if bits == 1:
                return quantize_sign(x, log_step, offset)
            return quantize_with_offset(x, log_step, offset, bits)
        return quantize_activation(x, log_step, bits, signed=layer.signed)

    def by_batch(self, layer: Layer, x: Tensor) -> Tensor:
        """Normalise by the batch's own mean and variance, as training does."""
        gamma_C, beta_C = self._affine(layer)
        return functional.batch_norm(x, None, None, gamma_C, beta_C, training=True, eps=NORM_EPSILON)

    def by_moments(self, layer: Layer, x: Tensor) -> Tensor:
        """Normalise by the stored moments, as inference does: what is added to the integer sums is whole too."""
        mean_C, variance_C = self.value(layer.name, Role.MEAN), self.value(layer.name, Role.VARIANCE)
        gamma_C, beta_C = self._affine(layer)
        gain_C = gamma_C.double() / (variance_C.double() + NORM_EPSILON).sqrt()
        beta_C = beta_C + self._rounding(layer, beta_C - mean_C * gain_C, gain_C)
        return functional.batch_norm(x, mean_C, variance_C, gamma_C, beta_C, training=False, eps=NORM_EPSILON)

    def weight_bits(self, layer: str) -> int:
        """Bits of a layer's weights at this precision."""
        return self.precision.bits_of(pinned=self.architecture.by_name[layer].pinned)

    def value(self, owner: str, role: Role) -> Tensor:
        """The tensor of a layer or scale group."""
        return self.values[f"{owner}.{role}"]

    def _normalised(self, layer: Layer, x: Tensor, normalise: Normalise) -> Tensor:
        if self.architecture.norm is Norm.BATCH:
            return normalise(layer, x)
        groups = self.architecture.norm_groups(layer.out_shape[0])
        return functional.group_norm(x, groups, *self._affine(layer), eps=NORM_EPSILON)

    def _affine(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self.value(layer.name, Role.GAMMA), self.value(layer.name, Role.BETA)

    def _bias(self, layer: Layer) -> Tensor | None:
        if not layer.has_bias:
            return None
        bias_O = self.value(layer.name, Role.BIAS)
        return bias_O + self._rounding(layer, bias_O, torch.ones_like(bias_O))

    @torch.no_grad()
    def _rounding(self, layer: Layer, constant_O: Tensor, gain_O: Tensor) -> Tensor:
        """What it adds to a constant behind a layer's sums, float32[O], that the exporter rounds it to whole sums.

        The same arithmetic as `export.passes.fold_normalisation`, in float64. A unit of the sums is worth little where
        inputs have 8 bits; at 1 bit it is worth several levels of an 8-bit stream.
        """
        bits = self.weight_bits(layer.name)
        if max(bits, self.precision.activation_bits) > 8:
            return torch.zeros_like(constant_O, dtype=torch.float32)
        step_O = unit_of(self.latent(layer), *self._weight_steps(layer), bits)
        scale_O = (step_O * gain_O.abs().double()).float()
        unit_O = self._input_step(layer) * scale_O.double()
        rounding_O = (constant_O / unit_O).round().mul(unit_O).sub_(constant_O)
        return rounding_O.nan_to_num_(0.0, 0.0, 0.0).float()  # a unit of 0: the exporter keeps the constant

    def _input_step(self, layer: Layer) -> Tensor:
        source = self._rows.scale_of(layer.inputs[0])
        if source == INPUT:
            return torch.tensor(INPUT_STEP).double()
        return step_of(self.value(source, Role.ACTIVATION_LOG_STEP)).double()

    def _weight_steps(self, layer: Layer) -> tuple[Tensor | None, Tensor | None]:
        """Log step and log scale of a layer's weight, each None where its grid has none."""
        role = Role.CODE_LOG_STEP if self.architecture.nested else Role.WEIGHT_LOG_STEP
        names = (f"{layer.name}.{role}", f"{layer.name}.{Role.WIDTH_LOG_SCALE}")
        return self.values.get(names[0]), self.values.get(names[1])

    def _prelu(self, layer: Layer, x: Tensor) -> Tensor:
        shift_in, shift_out = (self.value(layer.name, role).view(-1, 1, 1) for role in (Role.SHIFT_IN, Role.SHIFT_OUT))
        return functional.prelu(x - shift_in, self.value(layer.name, Role.SLOPE)) + shift_out

    def _padded(self, layer: Layer, x: Tensor) -> Tensor:
        """Signs are padded with −step, since the kernels that multiply them have no zero; x as it is elsewhere."""
        source = self._rows.by_name.get(layer.inputs[0])
        if source is None or source.kind is not Kind.RECODE or not source.signed or self.precision.activation_bits > 1:
            return x
        edges = (layer.padding,) * 4
        border = functional.pad(x.new_zeros((1, 1, *x.shape[2:])), edges, value=1.0)
        return functional.pad(x, edges) - border * step_of(self.value(source.scale, Role.ACTIVATION_LOG_STEP))


def _spent(rows: Architecture) -> dict[str, list[str]]:
    """By row, the outputs that no later row reads."""
    last_reader = {name: layer.name for layer in rows.layers for name in layer.inputs}
    spent: dict[str, list[str]] = {layer.name: [] for layer in rows.layers}
    for name, reader in last_reader.items():
        spent[reader].append(name)
    return spent


def _convolve(layer: Layer, x: Tensor, weight_OIKK: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """A convolution of an input that may be padded already; a strided 1×1 one reads only the pixels it needs.

    That is the same arithmetic, and it keeps away from a kernel that writes past its buffer (DECISIONS.md, 23).
    """
    stride, padding = layer.stride, layer.padding if x.shape[2:] == layer.in_shape[1:] else 0
    if layer.kernel == 1 and stride > 1:
        x, stride = x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last), 1
    return functional.conv2d(x, weight_OIKK, bias_O, stride=stride, padding=padding, groups=layer.groups)


class _Flat(Function):
    """One row a picture, channel by channel; its gradient goes back channels_last.

    As `flatten` alone would hand it on, pooling behind it would take ten times as long for its own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view(ctx.shape).contiguous(memory_format=torch.channels_last)


def _levels(pictures_NCHW: Tensor, zero: int) -> Tensor:
    """Pictures as float32 multiples of the input step, around the grey that is their zero.

    Copied into fresh memory: with one channel both layouts look contiguous, so that `contiguous` would keep whatever
    strides the caller's array had, and other strides take other kernels, whose sums differ in the last bit.
    """
    x = torch.empty(pictures_NCHW.shape, device=pictures_NCHW.device, memory_format=torch.channels_last)
    return x.copy_(pictures_NCHW).sub_(zero).mul_(INPUT_STEP)


def trained(spec: TensorSpec, tensors: Mapping[str, Float32 | Tensor], device: str = "cpu") -> Tensor:
    """A tensor of the table, of torch as it is, copied from an array and with a gradient unless it is a moment.

    Raises:
        TrainerError: it is missing or has another shape than the table says.
    """
    if spec.name not in tensors:
        raise TrainerError(f"tensor {spec.name} is missing: expected float32{list(spec.shape)}")
    given = tensors[spec.name]
    if tuple(given.shape) != spec.shape:
        raise TrainerError(f"tensor {spec.name} has shape {tuple(given.shape)}: expected {spec.shape}")
    if isinstance(given, Tensor):
        return given
    value = torch.from_numpy(given.astype(np.float32))
    if value.dim() == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    return value.to(device).requires_grad_(spec.role not in MOMENTS)
