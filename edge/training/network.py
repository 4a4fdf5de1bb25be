"""The table as a differentiable function whose forward pass mirrors the integer network.

    convolution of fake-quantized weights → normalisation → quantizer of its scale group (which is the ReLU too)
    residual branches: the stream's shared step, signed;  add: the same step, unsigned;  pool and classifier: 8 bits

At fp32 there are no quantizers. Convolutions run in channels_last, the faster layout on processors.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge.training.quantizers import quantize_activation, quantize_weight
from edge.training.task import TrainerError
from protocol.architecture import INPUT, INPUT_STEP, MOMENTS, NORM_EPSILON, Architecture, Kind, Layer, Role, Tensors
from protocol.precision import Precision

Normalise = Callable[[Layer, Tensor], Tensor]
"""Normalises the output of a convolution, float32[N, C, H, W]; `Network.by_batch` and `Network.by_moments` are two."""

Activate = Callable[[Layer, Tensor], Tensor]
"""What happens to a layer's output before it is stored; `Network.activate` is the usual one."""


class Network:
    """A network at one precision.

    Attributes:
        values: every tensor of `architecture.tensors(precision)` by its wire name; all but moments are trained.
    """

    def __init__(self, architecture: Architecture, precision: Precision, tensors: Tensors) -> None:
        self.architecture, self.precision = architecture, precision
        self.specs = architecture.tensors(precision)
        self.values: dict[str, Tensor] = {}
        self.load_tensors(tensors)

    def load_tensors(self, tensors: Tensors) -> None:
        """Take copies of `tensors`.

        Raises:
            TrainerError: one is missing or has another shape than the table says.
        """
        for spec in self.specs:
            if spec.name not in tensors:
                raise TrainerError(f"tensor {spec.name} is missing: expected float32{list(spec.shape)}")
            given = tensors[spec.name]
            if given.shape != spec.shape:
                raise TrainerError(f"tensor {spec.name} has shape {given.shape}: expected {spec.shape}")
            value = torch.from_numpy(given.astype(np.float32))
            if value.dim() == 4:
                value = value.contiguous(memory_format=torch.channels_last)
            self.values[spec.name] = value.requires_grad_(spec.role not in MOMENTS)

    def tensors(self) -> Tensors:
        """Copies of all tensors, float32 in the table's shapes."""
        return {name: np.array(value.detach().numpy(), order="C") for name, value in self.values.items()}

    def __call__(
        self, pictures_NCHW: Tensor, normalise: Normalise | None = None, activate: Activate | None = None
    ) -> Tensor:
        """Logits float32[N, classes] of uint8 pictures, by default as the deployed network computes them."""
        normalise, activate = normalise or self.by_moments, activate or self.activate
        outputs = {INPUT: _levels(pictures_NCHW)}
        for layer in self.architecture.layers:
            inputs = [outputs[name] for name in layer.inputs]
            outputs[layer.name] = self._apply(layer, inputs, normalise, activate)
        return outputs[self.architecture.layers[-1].name]

    def _apply(self, layer: Layer, inputs: list[Tensor], normalise: Normalise, activate: Activate) -> Tensor:
        x = inputs[0]
        match layer.kind:
            case Kind.CONV:
                return activate(layer, normalise(layer, _convolve(layer, x, self._weight(layer))))
            case Kind.MAXPOOL:
                return functional.max_pool2d(x, layer.kernel, layer.stride, layer.padding)
            case Kind.ADD:
                return activate(layer, x + inputs[1])
            case Kind.AVGPOOL:
                return activate(layer, x.mean((2, 3)))
            case Kind.LINEAR:
                return functional.linear(x, self._weight(layer), self.value(layer.name, Role.BIAS))

    def _weight(self, layer: Layer) -> Tensor:
        log_step_O = self.values.get(f"{layer.name}.{Role.WEIGHT_LOG_STEP}")
        return quantize_weight(self.value(layer.name, Role.WEIGHT), log_step_O, self.weight_bits(layer.name))

    def activate(self, layer: Layer, x: Tensor) -> Tensor:
        """Quantize to the layer's scale group; at fp32 the ReLU alone."""
        bits = self.architecture.activation_bits(layer.scale, self.precision)
        if bits > 8:
            return x.relu() if layer.relu else x
        log_step = self.value(layer.scale, Role.ACTIVATION_LOG_STEP)
        return quantize_activation(x, log_step, bits, signed=layer.signed)

    def by_batch(self, layer: Layer, x: Tensor) -> Tensor:
        """Normalise by the batch's own mean and variance, as training does."""
        return self._normalise(layer, x, None, None)

    def by_moments(self, layer: Layer, x: Tensor) -> Tensor:
        """Normalise by the stored moments, as inference does."""
        return self._normalise(layer, x, self.value(layer.name, Role.MEAN), self.value(layer.name, Role.VARIANCE))

    def _normalise(self, layer: Layer, x: Tensor, mean_C: Tensor | None, variance_C: Tensor | None) -> Tensor:
        gamma_C, beta_C = self.value(layer.name, Role.GAMMA), self.value(layer.name, Role.BETA)
        by_batch = mean_C is None
        return functional.batch_norm(x, mean_C, variance_C, gamma_C, beta_C, training=by_batch, eps=NORM_EPSILON)

    def weight_bits(self, layer: str) -> int:
        """Bits of a layer's weights at this precision."""
        return self.precision.bits_of(pinned=self.architecture.by_name[layer].pinned)

    def value(self, owner: str, role: Role) -> Tensor:
        """The tensor of a layer or scale group."""
        return self.values[f"{owner}.{role}"]


def _convolve(layer: Layer, x: Tensor, weight_OIKK: Tensor) -> Tensor:
    """A convolution; a strided 1×1 one reads only the pixels it needs.

    That is the same arithmetic, and it keeps away from a kernel that writes past its buffer (DECISIONS.md, 23).
    """
    stride = layer.stride
    if layer.kernel == 1 and stride > 1:
        x, stride = x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last), 1
    return functional.conv2d(x, weight_OIKK, stride=stride, padding=layer.padding)


def _levels(pictures_NCHW: Tensor) -> Tensor:
    """Pictures as float32 multiples of the input step.

    Copied into fresh memory: with one channel both layouts look contiguous, so that `contiguous` would keep whatever
    strides the caller's array had, and other strides take other kernels, whose sums differ in the last bit.
    """
    x = torch.empty(pictures_NCHW.shape, memory_format=torch.channels_last)
    return x.copy_(pictures_NCHW).mul_(INPUT_STEP)
