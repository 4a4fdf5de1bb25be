"""SGD with Nesterov momentum, and which tensors it treats apart.

Momentum starts from zero in every round: the server averages weights, and a buffer from before the merge would pull
towards the device's own past. One buffer per tensor also leaves a small board room that Adam's two would take.
"""

from typing import Any, Final

import torch

from edge.training.model import Model
from protocol.architecture import LOG_STEPS, PROFILE, Role, TensorSpec

MOMENTUM: Final = 0.9
WEIGHT_DECAY: Final = 5e-4
STEP_RATE: Final = 0.1
"""Of the learning rate, for log steps: a step that jumps changes every code of its channel or group at once."""


def optimizer_for(model: Model, learning_rate: float) -> torch.optim.Optimizer:
    """A fresh optimizer over everything that is trained.

    Weight decay is for quantized and plain weights only. Gains, offsets and steps need none, and a latent that is used
    at 1 bit alone has only its sign to give: decay would bring it to where the next small gradient flips it.
    """
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": WEIGHT_DECAY},
        {"params": []},
        {"params": [], "lr": learning_rate * STEP_RATE},
    ]
    for spec in model.specs:
        value = model.values[spec.name]
        if value.requires_grad:
            groups[_group_of(model, spec)]["params"].append(value)
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=MOMENTUM, nesterov=True, fused=True)
    # A width that is drawn later has no gradient at first, and the fused step wants buffers for all or for none.
    for value in (value for group in groups for value in group["params"]):
        optimizer.state[value]["momentum_buffer"] = torch.zeros_like(value)
    return optimizer


def _group_of(model: Model, spec: TensorSpec) -> int:
    if spec.role in PROFILE | LOG_STEPS:
        return 2
    if spec.role is not Role.WEIGHT:
        return 1
    return 1 if all(network.weight_bits(spec.owner) == 1 for network in model.networks.values()) else 0
