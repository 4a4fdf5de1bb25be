"""What a recipe costs and loses: one update of Gaussian noise is really coded, for a network and a recipe once.

Planning needs both before anybody has trained; bytes of real updates are counted elsewhere. A trial has no feedback, so
that for `ef+` and `dgc+` it tells what one round loses, of which the next ones bring most back.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from protocol import networks
from protocol.architecture import Role
from protocol.codec.payload import Content, Header, decode, encode
from protocol.codec.recipe import Recipe
from protocol.precision import FP32

_SCALE = 0.01


@dataclass(frozen=True, slots=True)
class Trial:
    """Bytes of an update, and the squared error of its weights over their squares."""

    payload_bytes: int
    error: float


@lru_cache(maxsize=32)
def trial(architecture: str, recipe: str) -> Trial:
    """Code an update of `architecture` by `recipe` and read it again.

    Raises:
        ProtocolError: either does not exist.
    """
    specs = networks.parse(architecture).tensors(FP32)
    rng = np.random.default_rng(0)
    tensors = {spec.name: np.abs(rng.normal(scale=_SCALE, size=spec.shape)).astype(np.float32) for spec in specs}
    weights = [spec.name for spec in specs if spec.role is Role.WEIGHT]
    for name in weights:
        tensors[name] *= rng.choice(np.array([-1, 1], dtype=np.float32), size=tensors[name].shape)
    header = Header(architecture, str(Recipe.parse(recipe).without_feedback), str(FP32), Content.DELTA, 1)
    data = encode(header, tensors, rng)
    read = decode(data).tensors
    lost = sum(float(((read[name] - tensors[name]) ** 2).sum()) for name in weights)
    return Trial(len(data), lost / sum(float((tensors[name] ** 2).sum()) for name in weights))
