"""Quantization-aware training with steps from minimum and maximum, the usual rival of learned steps.

B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018, arXiv 1712.05877: a weight's grid ends at its largest magnitude (here per channel), an activation's at a moving
average of what batches reach. Nothing is clipped but what the average misses, so one outlier sets the step.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod
from edge.training.model import Model
from edge.training.network import Network
from protocol.architecture import LOG_STEPS, Layer, Role
from protocol.precision import MIN_STEP, activation_range, max_code

AVERAGING: Final = 0.05
"""Weight of the newest batch in the moving average of the reach of activations."""


class MinMax(TrainingMethod):
    """Cross-entropy with steps that follow the values instead of a gradient."""

    def __init__(self, model: Model, generator: torch.Generator) -> None:
        super().__init__(model, generator)
        for spec in model.specs:
            if spec.role in LOG_STEPS:
                model.values[spec.name].requires_grad_(False)
        self.settle()

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term."""
        network = self.model.own

        def follow(layer: Layer, x: Tensor) -> Tensor:
            _follow(network, layer, x)
            return network.activate(layer, x)

        logits = network(pictures_NCHW, network.by_batch, follow)
        yield Term(functional.cross_entropy(logits, labels_N), logits)

    @torch.no_grad()
    def settle(self) -> None:
        """Set every weight step from the weight as it is now."""
        network = self.model.own
        for layer in self.model.architecture.layers:
            log_step_O = network.values.get(f"{layer.name}.{Role.WEIGHT_LOG_STEP}")
            if log_step_O is not None:
                reach_O = network.latent(layer).abs().flatten(1).amax(1)
                log_step_O.copy_((reach_O / max_code(network.weight_bits(layer.name))).clamp_min(float(MIN_STEP)).log())


@torch.no_grad()
def _follow(network: Network, layer: Layer, x: Tensor) -> None:
    """Move the step of the layer's group towards what this batch reaches."""
    bits = network.architecture.activation_bits(layer.scale, network.precision)
    if bits > 8:
        return
    low, high = activation_range(bits, signed=layer.signed)
    reach = torch.maximum(x.max() / max(high, 1), x.min() / low) if layer.signed else x.max() / high
    log_step = network.value(layer.scale, Role.ACTIVATION_LOG_STEP)
    log_step.lerp_(reach.clamp_min(float(MIN_STEP)).log().reshape(1), AVERAGING)
