"""Many precisions in every step: FedAvg-MQAT with the sandwich rule.

K. Gupta et al., "Quantization Robust Federated Learning for Efficient Inference on Heterogeneous Devices", TMLR 2023,
arXiv 2206.10844, draws one width per step. J. Yu, T. Huang, "Universally Slimmable Networks and Improved Training
Techniques", ICCV 2019, arXiv 1903.05134: train the widest, the narrowest and one between in each step, the widest by
the labels, the others by what the widest says.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod
from protocol.precision import Precision


class Several(TrainingMethod):
    """Sandwich rule with distillation; with one precision it is plain training, with two there is none between."""

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term for each precision of the step, of equal weight, together one loss."""
        widest, *others = self._drawn()
        network = self.model.networks[widest]
        logits = network(pictures_NCHW, network.by_batch)
        share = 1.0 / (1 + len(others))
        yield Term(functional.cross_entropy(logits, labels_N) * share, logits)
        taught_NK = logits.detach().softmax(1)
        for precision in others:
            network = self.model.networks[precision]
            logits = network(pictures_NCHW, network.by_batch)
            yield Term(functional.cross_entropy(logits, taught_NK) * share)

    def _drawn(self) -> list[Precision]:
        """The precisions of this step, widest first: they come in that order from the task."""
        first, *rest = self.model.precisions
        if len(rest) < 2:
            return [first, *rest]
        between = int(torch.randint(len(rest) - 1, (1,), generator=self.generator))
        return [first, rest[between], rest[-1]]
