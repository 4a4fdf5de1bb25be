"""Noise instead of rounding: FedAvg-APQN (additive pseudo quantization noise) of arXiv 2206.10844.

    forward with w + (Δ/2)·u,   u uniform on [−1, 1],   Δ = 2·max|w| / (2^b − 1) per output channel

The gradient needs no straight-through estimate. Judged without noise: the model is quantized when it is done.
"""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod
from edge.training.quantizers import noisy_weight
from protocol.architecture import Layer


class Noise(TrainingMethod):
    """Cross-entropy under the noise of one width; activations as the precision says."""

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term."""
        network = self.model.own

        def noisy(layer: Layer) -> Tensor:
            return noisy_weight(network.latent(layer), network.weight_bits(layer.name), self.generator)

        logits = network(pictures_NCHW, network.by_batch, None, noisy)
        yield Term(functional.cross_entropy(logits, labels_N), logits)
