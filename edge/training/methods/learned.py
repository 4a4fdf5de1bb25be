"""One precision, everything learned by the task's own loss: FedAvg at fp32, OQFL below.

J. Kim, C. S. Hong, "Optimized Quantization in Federated Learning", APNOMS 2020, with the quantizer of S. K. Esser et
al., "Learned Step Size Quantization", ICLR 2020, arXiv 1902.08153.
"""

from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod


class Learned(TrainingMethod):
    """Cross-entropy of the model's own network."""

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term."""
        network = self.model.own
        logits = network(pictures_NCHW, network.by_batch)
        yield Term(functional.cross_entropy(logits, labels_N), logits)
