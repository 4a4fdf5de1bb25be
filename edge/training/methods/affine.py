"""The scheme of "Federated Binary Quantization": weights swapped for b-bit affine codes, forward and backward.

Before every batch the weights of the layers that are not pinned are replaced by their codes; the gradient found there
moves the full-precision weight (M. Courbariaux et al., "BinaryConnect", NeurIPS 2015, arXiv 1511.00363). One affine
grid per tensor (`quantizers.affine_weight`); activations stay as the precision says, float in the published system.
"""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod
from edge.training.network import Network, Weigh
from edge.training.quantizers import affine_weight
from protocol.architecture import Layer


class Affine(TrainingMethod):
    """Cross-entropy of the network with swapped weights, in training and where it is judged."""

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term."""
        network = self.model.own
        logits = network(pictures_NCHW, network.by_batch, None, self.weigh(network))
        yield Term(functional.cross_entropy(logits, labels_N), logits)

    def weigh(self, network: Network) -> Weigh:
        """Codes where the width is below 32 bits; pinned layers on their own grid."""

        def swapped(layer: Layer) -> Tensor:
            bits = network.weight_bits(layer.name)
            return network.weight(layer) if layer.pinned or bits > 16 else affine_weight(network.latent(layer), bits)

        return swapped
