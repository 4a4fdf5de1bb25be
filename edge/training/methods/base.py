"""What every training method has in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge.training.model import Model
from edge.training.network import Activate, Network, Normalise, Weigh


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the loss: a scalar, and the logits behind it where they are those of the model's own precision."""

    loss: Tensor
    logits: Tensor | None = None


class TrainingMethod(ABC):
    """One rule for a step of training.

    The trainer asks for the terms of a batch one by one and back-propagates each before it asks for the next, so that
    the memory of one pass is enough for any number of them.

    Args:
        model: what is trained.
        generator: of whatever the method draws.
    """

    def __init__(self, model: Model, generator: torch.Generator) -> None:
        self.model, self.generator = model, generator

    @abstractmethod
    def terms(self, pictures_NCHW: Tensor, labels_N: Tensor) -> Iterator[Term]:
        """The loss of a batch; the first term has logits."""

    def settle(self) -> None:  # noqa: B027 (most methods have nothing to settle)
        """Called after every step of the optimizer."""

    def logits(
        self,
        network: Network,
        pictures_NCHW: Tensor,
        normalise: Normalise | None = None,
        activate: Activate | None = None,
    ) -> Tensor:
        """Logits of a network with the weights that this method runs it with."""
        return network(pictures_NCHW, normalise, activate, self.weigh(network))

    def weigh(self, network: Network) -> Weigh | None:  # noqa: ARG002
        """How this method quantizes weights where it is judged; None for the network's own way."""
        return None
