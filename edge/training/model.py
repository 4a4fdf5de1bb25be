"""Every trained tensor once, and a network per precision over them."""

import numpy as np
import torch
from torch import Tensor

from edge.training.network import Network, trained
from protocol.architecture import Architecture, Tensors
from protocol.precision import Precision


class Model:
    """A model at one or several precisions, whose networks share their shared tensors.

    Attributes:
        architecture: the table.
        precisions: in the order of the task.
        device: where torch keeps it.
        specs: `architecture.tensors(*precisions)`.
        values: every tensor by its name there; all but moments are trained.
        networks: one for each precision.
    """

    def __init__(
        self, architecture: Architecture, precisions: tuple[Precision, ...], tensors: Tensors, device: str = "cpu"
    ) -> None:
        self.architecture, self.precisions, self.device = architecture, precisions, device
        self.specs = architecture.tensors(*precisions)
        self.values: dict[str, Tensor] = {spec.name: trained(spec, tensors, device) for spec in self.specs}
        self.networks = {precision: self._network(precision) for precision in precisions}

    @property
    def own(self) -> Network:
        """The network of the first precision, by which a device is judged."""
        return self.networks[self.precisions[0]]

    def tensors(self) -> Tensors:
        """Copies of all tensors, float32 in the table's shapes."""
        return {name: np.array(value.detach().cpu().numpy(), order="C") for name, value in self.values.items()}

    @torch.no_grad()
    def update(self, tensors: Tensors) -> None:
        """Overwrite the tensors that are named."""
        for name, value in tensors.items():
            self.values[name].copy_(torch.from_numpy(value))

    def check_steps(self) -> None:
        """Check every learned step.

        Raises:
            TrainerError: one is zero or not finite; the message names its tensor.
        """
        for network in self.networks.values():
            network.check_steps()

    def _network(self, precision: Precision) -> Network:
        mine = (spec for spec in self.specs if spec.profile in {"", str(precision)})
        return Network.over(self.architecture, precision, {spec.plain_name: self.values[spec.name] for spec in mine})
