"""Error feedback: what a lossy codec drops this round is added to the next.

S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML 2019, arXiv 1901.09847. With delta Δ, residual e and codec C:

    p = Δ + e        sent: C(p)        e' = p − C(p)

With momentum correction (`dgc`), so that what waits in e gathers speed as it would have in the model (Y. Lin et al.,
"Deep Gradient Compression", ICLR 2018, arXiv 1712.01887); where something was sent, u starts again from zero:

    u = m·u + Δ        p = u + e        sent: C(p)        e' = p − C(p)        u' = 0 where C(p) ≠ 0

Only weights have a residual; side tensors travel at 8 or 16 bits. The caller keeps e' and u' aside until the
aggregator's signed receipt says that C(p) counted, and forgets them otherwise.

A residual is about the model it was left from. Others move that model while the device is away, so it fades with every
round the device misses, and after `MAX_AGE_ROUNDS` it is dropped.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from protocol.architecture import Role, Tensors
from protocol.codec.payload import Header, decode, encode
from protocol.codec.recipe import Recipe

MOMENTUM: Final = 0.9
FADING: Final = 0.9
"""What is left of a residual for each round that the device was not asked, or whose update did not count."""
MAX_AGE_ROUNDS: Final = 20
"""After as many, an eighth would be left, of a direction that the model has long turned away from."""
_SPEED: Final = "momentum/"
"""Before the name of a weight, names its u; no tensor has a slash there."""


def encode_with_feedback(
    header: Header, tensors: Tensors, residual: Tensors, rng: np.random.Generator, steps: Sequence[float] = ()
) -> tuple[bytes, Tensors]:
    """Encode `tensors` plus `residual`.

    Args:
        header: as for `payload.encode`; its recipe says whether feedback is on.
        tensors: the update.
        residual: what the last call returned; missing names count as zero.
        rng: for stochastic rounding.
        steps: as for `payload.encode`.

    Returns:
        The payload, and the next residual (empty without feedback).
    """
    feedback = Recipe.parse(header.recipe).feedback
    if not feedback:
        return encode(header, tensors, rng, steps), {}
    weights = [spec.name for spec in header.specs if spec.role is Role.WEIGHT]
    zero, factor = np.float32(0), np.float32(MOMENTUM if feedback == "dgc" else 0)
    speed = {name: tensors[name] + factor * residual.get(_SPEED + name, zero) for name in weights}
    corrected = tensors | {name: speed[name] + residual.get(name, zero) for name in weights}
    payload = encode(header, corrected, rng, steps)
    sent = decode(payload).tensors
    left = {name: corrected[name] - sent[name] for name in weights}
    if factor:
        left |= {_SPEED + name: np.where(sent[name] != 0, zero, speed[name]) for name in weights}
    return payload, left


def aged(residual: Tensors, rounds: int) -> Tensors:
    """What counts of a residual, `rounds` rounds after the one that left it; in the very next one, all of it."""
    if not 0 <= rounds <= MAX_AGE_ROUNDS:
        return {}
    left = np.float32(FADING ** max(0, rounds - 1))
    return {name: left * values for name, values in residual.items()} if left < 1 else residual
