"""How a device trains, each method one small class; `protocol.method` has the names they travel by."""

import torch

from edge.training.methods.affine import Affine
from edge.training.methods.base import TrainingMethod
from edge.training.methods.kurtosis import Kurtosis
from edge.training.methods.learned import Learned
from edge.training.methods.min_max import MinMax
from edge.training.methods.noise import Noise
from edge.training.methods.several import Several
from edge.training.model import Model
from protocol.method import Method

__all__ = ["TrainingMethod", "method_for"]

_BASES: dict[str, type[TrainingMethod]] = {
    "fp32": Learned,
    "oqfl": Learned,
    "qat": MinMax,
    "apqn": Noise,
    "mqat": Several,
    "fbq": Affine,
}


def method_for(method: Method, model: Model, seed: int) -> TrainingMethod:
    """The method of a task, over the model it trains; `seed` is of whatever it draws."""
    base = _BASES[method.base](model, torch.Generator().manual_seed(seed % (1 << 63)))
    return Kurtosis(base) if method.kure else base
