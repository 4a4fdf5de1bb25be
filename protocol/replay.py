"""The replay guard: what was said once is not heard twice.

A sender's stamps rise strictly within each message type. Types are guarded apart because a broker keeps order within
a topic but not between topics. Retained messages and wills are exempt: they return by design, and their `session`
decides (`newer_session`).
"""

from collections.abc import Mapping
from typing import Final

from protocol.envelope import Envelope, Stamp
from protocol.errors import Replayed
from protocol.messages import GUARDED_BY_SESSION, NUMBERS

Seen = Mapping[int, Stamp]
"""The newest stamp of one sender by message type number."""

NOTHING_SEEN: Final[Seen] = {}


def admit(seen: Seen, envelope: Envelope) -> Seen:
    """What has been seen of the sender once `envelope` is admitted.

    Raises:
        Replayed: its stamp is not above the newest one of its type.
    """
    cls, stamp = type(envelope.message), envelope.stamp
    number = NUMBERS[cls]
    newest = seen.get(number)
    if cls in GUARDED_BY_SESSION:
        return seen
    if newest is not None and stamp <= newest:
        raise Replayed(
            f"{cls.__name__} of {envelope.sender} at boot {stamp.boot}, sequence {stamp.sequence}:"
            f" expected above boot {newest.boot}, sequence {newest.sequence}"
        )
    return {**seen, number: stamp}
