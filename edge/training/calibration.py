"""First activation steps from real pictures, by least squared error.

Y. Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", CVPR
Workshops 2020, arXiv 2004.09576, section 3.3: s = argmin ‖v̂(s) − v‖². Here by search over fractions of the largest
step that still clips nothing, and over every zero point where there is an offset. A group takes the largest step that
any of its members asks for.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from edge.training.network import Network
from protocol.architecture import Kind, Layer, Role
from protocol.precision import MIN_STEP, activation_range

_FRACTIONS: Final = tuple(0.95**k for k in range(60))
"""From clipping nothing down to a twentieth: at one bit the best step lies near half the largest value."""

_SAMPLE: Final = 1 << 16
"""Values to judge a step by: enough that the best one of those tried does not change with more."""


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
            best = self._best(layer, x, bits)
            log_step.copy_(torch.maximum(log_step, best) if layer.scale in self._seen else best)
            self._seen.add(layer.scale)
        return self._network.activate(layer, x)

    def _best(self, layer: Layer, x: Tensor, bits: int) -> Tensor:
        """The log step; a signed narrow group, which has no second member, gets its offset on the way."""
        if layer.kind is not Kind.RECODE or not layer.signed:
            return best_log_step(x, bits, signed=layer.signed)
        offset = self._network.value(layer.name, Role.ACTIVATION_OFFSET)
        if bits == 1:
            return (x - offset.view(-1, 1, 1)).abs().mean().clamp_min(float(MIN_STEP)).log().reshape(1)
        log_step, lowest = best_log_step_and_offset(x, bits)
        offset.copy_(lowest)
        return log_step


def best_log_step(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """float32[1], the log step of least squared error for values x, float32[N, …]."""
    low, high = activation_range(bits, signed=signed)
    return _search(x if signed else x.relu(), low, high)[1]


def best_log_step_and_offset(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The log step and the lowest level, float32[1] each, of least squared error for values x, float32[N, …].

    Whichever zero point is best, some level lies at zero: padding and a closed channel stay exact.
    """
    top = (1 << bits) - 1
    candidates = [(*_search(x, -zero, top - zero), zero) for zero in range(top + 1)]
    _, log_step, zero = min(candidates, key=lambda candidate: float(candidate[0]))
    return log_step, -zero * log_step.exp()


def _search(x: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Least mean squared error for levels low to high, and the log step float32[1] that has it."""
    largest, smallest = float(x.max()), float(x.min())
    reach = max(largest / high if high else 0.0, smallest / low if low else 0.0, float(MIN_STEP))
    sample = _sample(x)
    steps = [reach * fraction for fraction in _FRACTIONS]
    errors = torch.stack([((sample / s).round_().clamp_(low, high).mul_(s) - sample).square_().mean() for s in steps])
    best = int(errors.argmin())
    return errors[best], torch.tensor([steps[best]], device=x.device).log()


def _sample(x: Tensor) -> Tensor:
    """Drawn at random, the same way every time: at even distances one would see the same column of every row."""
    flat = x.flatten()
    if len(flat) <= _SAMPLE:
        return flat
    return flat[torch.from_numpy(np.random.default_rng(0).integers(0, len(flat), _SAMPLE)).to(x.device)]
