"""First activation steps from real pictures, by least squared error.

Y. Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", CVPR
Workshops 2020, arXiv 2004.09576, section 3.3: s = argmin ‖v̂(s) − v‖². Here by search over fractions of the largest
step that still clips nothing. A group takes the largest step that any of its members asks for.
"""

from typing import Final

import torch
from torch import Tensor

from edge.training.network import Network
from edge.training.quantizers import quantize_activation
from protocol.architecture import Layer, Role
from protocol.precision import MIN_STEP, activation_range

_FRACTIONS: Final = tuple(0.95**k for k in range(60))
"""From clipping nothing down to a twentieth: at one bit the best step lies near half the largest value."""


class StepSearch:
    """An activation stage that sets steps as it meets them, in the order of the table."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._seen: set[str] = set()

    @torch.no_grad()
    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Set or widen the step of the layer's group to suit x, float32[N, …], then quantize."""
        bits = self._network.architecture.activation_bits(layer.scale, self._network.precision)
        if bits <= 8:
            log_step = self._network.value(layer.scale, Role.ACTIVATION_LOG_STEP)
            best = best_log_step(x, bits, signed=layer.signed)
            log_step.copy_(torch.maximum(log_step, best) if layer.scale in self._seen else best)
            self._seen.add(layer.scale)
        return self._network.activate(layer, x)


def best_log_step(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """float32[1], the log step of least squared error for values x, float32[N, …]."""
    low, high = activation_range(bits, signed=signed)
    positive, negative = x.max().clamp(min=0), (-x.min()).clamp(min=0)
    reach = max(float(positive) / max(high, 1), float(negative) / -low if signed else 0.0, float(MIN_STEP))
    candidates = [torch.tensor([reach * fraction]).log() for fraction in _FRACTIONS]
    target = x if signed else x.relu()
    errors = [(quantize_activation(x, step, bits, signed=signed) - target).square().mean() for step in candidates]
    return candidates[int(torch.stack(errors).argmin())]
