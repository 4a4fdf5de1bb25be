"""Many precisions in every step: FedAvg-MQAT with the sandwich rule.

K. Gupta et al., "Quantization Robust Federated Learning for Efficient Inference on Heterogeneous Devices", TMLR 2023,
arXiv 2206.10844, draws one width per step. J. Yu, T. Huang, "Universally Slimmable Networks and Improved Training
Techniques", ICCV 2019, arXiv 1903.05134: train the widest, the narrowest and one between in each step, the widest by
the labels, the others by what the widest says. Here the others hear both, since a teacher that is itself learning says
little at first. The losses are added, not averaged: each width moves the latents as far as it would alone.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from edge.training.methods.base import Term, TrainingMethod
from protocol.precision import Precision

TAUGHT: Final = 0.5
"""Share of the widest network's word in what the others learn from; the rest is the labels'."""


class Several(TrainingMethod):
    """Sandwich rule with distillation; with one precision it is plain training, with two there is none between."""

    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """One term for each precision of the step."""
        widest, *others = self._drawn()
        network = self.model.networks[widest]
        logits = network(pictures_NCHW, network.by_batch)
        yield Term(functional.cross_entropy(logits, labels_N), logits)
        truth_NK = functional.one_hot(labels_N, logits.shape[1]).to(logits.dtype)
        taught_NK = truth_NK.lerp(logits.detach().softmax(1), TAUGHT)
        for precision in others:
            network = self.model.networks[precision]
            logits = network(pictures_NCHW, network.by_batch)
            yield Term(functional.cross_entropy(logits, taught_NK))

    def _drawn(self) -> list[Precision]:
        """The precisions of this step, widest first: they come in that order from the task."""
        first, *rest = self.model.precisions
        if len(rest) < 2:
            return [first, *rest]
        between = int(torch.randint(len(rest) - 1, (1,), generator=self.generator))
        return [first, rest[between], rest[-1]]
