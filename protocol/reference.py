"""The base model as a state that both sides hold to the bit, and the steps that move it on.

    state_t = state_(t−1) + C(w_t − state_(t−1))

What the codec C drops stays in the difference and is sent later: error feedback of the way down, with the state itself
as its memory (K. Gruntkowska, A. Tyurin, P. Richtárik, "EF21-P and Friends: Improved Theoretical Communication
Complexity for Distributed Optimization with Bidirectional Compression", ICML 2023, arXiv 2209.15218). Moments are not
added up; a step carries them as they are, or leaves them.

A state is written as its `fp32` payload, and the SHA-256 of that is its name. Whoever missed steps catches up by those
it missed, or takes the whole state where that is less; either way the name proves that nothing went astray.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from protocol.codec.payload import Content, Header, Payload, decode, encode
from protocol.errors import LocalProtocolError, Malformed
from protocol.messages import Step


def state_of(whole: bytes) -> bytes:
    """The state that a payload of weights leads to, whatever its recipe.

    Raises:
        RemoteProtocolError: no payload, or one of something else.
    """
    payload = decode(whole)
    _require(payload.header, Content.WEIGHTS)
    return _written(payload)


def moved(state: bytes, step: bytes) -> bytes:
    """The state after a step.

    Args:
        state: the one before.
        step: payload of deltas, or of weights, which leads anywhere from anywhere.

    Raises:
        RemoteProtocolError: either is no such payload, they are of different models, or a value leaves the range.
    """
    payload = decode(step)
    if payload.header.content is Content.WEIGHTS:
        return _written(payload)
    _require(payload.header, Content.DELTA)
    before = decode(state)
    if (before.header.architecture, before.header.precision) != (payload.header.architecture, payload.header.precision):
        raise Malformed(
            f"step of {payload.header.architecture} at {payload.header.precision}: expected"
            f" {before.header.architecture} at {before.header.precision}"
        )
    tensors = before.tensors | payload.tensors
    for spec in (*payload.header.layout.weights, *payload.header.layout.deltas):
        tensors[spec.name] = before.tensors[spec.name] + tensors[spec.name]
    return _written(Payload(before.header, tensors))


def cheapest(steps: Sequence[Step], base: bytes, base_bytes: int, held: Collection[bytes]) -> Sequence[Step] | None:
    """The steps that lead to the state `base` with the fewest bytes.

    Args:
        steps: each leads to where the next begins, the last to `base`.
        base: name of the state wanted.
        base_bytes: length of the whole state.
        held: names of the states at hand.

    Returns:
        Steps from a state at hand, or from none where the first does not need one; nothing to do if `base` is at hand
        already; None where the whole state is no more bytes.
    """
    if base in held:
        return ()
    ways = [steps[start:] for start, step in enumerate(steps) if not step.before or step.before in held]
    best = min(ways, key=length, default=None)
    return best if best is not None and length(best) < base_bytes else None


def length(steps: Sequence[Step]) -> int:
    """Bytes of all their payloads."""
    return sum(step.payload_bytes for step in steps)


def _written(payload: Payload) -> bytes:
    header = replace(payload.header, recipe="fp32", content=Content.WEIGHTS, pictures=0, seed=0)
    try:
        return encode(header, payload.tensors, np.random.default_rng(0))
    except LocalProtocolError as error:
        raise Malformed(f"step that leads out of range: {error}") from error


def _require(header: Header, content: Content) -> None:
    if header.content is not content:
        raise Malformed(f"payload of {header.content.name.lower()}: expected {content.name.lower()}")
