"""Weights shaped for any width: the kurtosis term of KURE.

M. Shkolnik et al., "Robust Quantization: One Model to Rule Them All", NeurIPS 2020, arXiv 2002.07686; federated as
FedAvg-KURE in arXiv 2206.10844. Over the L layers that are not pinned at 8 bits,

    R = λ/L · Σ_l (Kurt(W_l) − 1.8)²        Kurt(W) = mean(((w − μ)/σ)⁴)

1.8 is the kurtosis of a uniform law, on which a uniform grid loses least and the size of its step matters least.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from edge.training.methods.base import Term, TrainingMethod
from edge.training.network import Network, Weigh
from protocol.architecture import Role

UNIFORM_KURTOSIS: Final = 1.8
STRENGTH: Final = 1.0
"""λ, as the authors of KURE set it."""


class Kurtosis(TrainingMethod):
    """Any method, and the kurtosis term of its latents."""

    def __init__(self, inner: TrainingMethod) -> None:
        super().__init__(inner.model, inner.generator)
        self._inner = inner
        network = self.model.own
        layers = self.model.architecture.layers
        self._latents = [
            network.value(layer.name, Role.WEIGHT) for layer in layers if layer.weight_shape and not layer.pinned
        ]

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """The inner method's terms and one more."""
        yield from self._inner.terms(pictures_NCHW, labels_N)
        excess = torch.stack([kurtosis(latent) for latent in self._latents]) - UNIFORM_KURTOSIS
        yield Term(STRENGTH * excess.square().mean())

    def settle(self) -> None:
        """As the inner method does."""
        self._inner.settle()

    def weigh(self, network: Network) -> Weigh | None:
        """As the inner method does."""
        return self._inner.weigh(network)


def kurtosis(values: Tensor) -> Tensor:
    """The fourth standardized moment of all values, 3 for a bell curve, as a scalar."""
    centred = values - values.mean()
    squared = centred.square()
    return squared.square().mean() / squared.mean().square().clamp_min(torch.finfo(values.dtype).tiny)
