"""Error feedback: what a lossy codec drops this round is added to the next.

S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
Schemes", ICML 2019, arXiv 1901.09847. With delta Δ, residual e and codec C:

    p = Δ + e        sent: C(p)        e' = p − C(p)

Only weights have a residual; side tensors travel at 8 or 16 bits. The caller keeps e' aside until the aggregator's
signed receipt says that C(p) counted, and forgets it otherwise.
"""

import numpy as np

from protocol.architecture import Role, Tensors
from protocol.codec.payload import Header, decode, encode
from protocol.codec.recipe import Recipe


def encode_with_feedback(
    header: Header, tensors: Tensors, residual: Tensors, rng: np.random.Generator
) -> tuple[bytes, Tensors]:
    """Encode `tensors` plus `residual`.

    Args:
        header: as for `payload.encode`; its recipe says whether feedback is on.
        tensors: the update.
        residual: the last e by weight name; missing names count as zero.
        rng: for stochastic rounding.

    Returns:
        The payload, and the next residual (empty without feedback).
    """
    if not Recipe.parse(header.recipe).feedback:
        return encode(header, tensors, rng), {}
    weights = [spec.name for spec in header.specs if spec.role is Role.WEIGHT]
    corrected = tensors | {name: tensors[name] + residual.get(name, np.float32(0)) for name in weights}
    payload = encode(header, corrected, rng)
    sent = decode(payload).tensors
    return payload, {name: corrected[name] - sent[name] for name in weights}
