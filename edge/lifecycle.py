"""The states of an agent, and the legal moves between them, as data.

    UNPROVISIONED → JOINING → PENDING → IDLE
    IDLE → DOWNLOADING → TRAINING → ENCODING → UPLOADING → AWAIT_RECEIPT → IDLE

A restart always continues in IDLE and finds its work in the journal and the outbox.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from protocol.messages import Status


class Lifecycle(StrEnum):
    """Where an agent stands. Travels in telemetry by value."""

    UNPROVISIONED = "unprovisioned"
    JOINING = "joining"
    PENDING = "pending"
    IDLE = "idle"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    ENCODING = "encoding"
    UPLOADING = "uploading"
    AWAIT_RECEIPT = "await-receipt"
    SLEEPING = "sleeping"
    THROTTLED = "throttled"
    SAFE_MODE = "safe-mode"
    REVOKED = "revoked"


_L = Lifecycle

MOVES: Final[Mapping[Lifecycle, frozenset[Lifecycle]]] = {
    _L.UNPROVISIONED: frozenset({_L.JOINING}),
    _L.JOINING: frozenset({_L.PENDING, _L.IDLE, _L.UNPROVISIONED}),
    _L.PENDING: frozenset({_L.JOINING, _L.IDLE}),
    _L.IDLE: frozenset({_L.DOWNLOADING, _L.UPLOADING, _L.SLEEPING, _L.THROTTLED, _L.SAFE_MODE, _L.REVOKED}),
    # A model is installed without training: DOWNLOADING → IDLE. Any failure is declined and ends in IDLE as well.
    _L.DOWNLOADING: frozenset({_L.TRAINING, _L.IDLE, _L.REVOKED}),
    _L.TRAINING: frozenset({_L.ENCODING, _L.IDLE, _L.REVOKED}),
    _L.ENCODING: frozenset({_L.UPLOADING, _L.IDLE, _L.REVOKED}),
    _L.UPLOADING: frozenset({_L.AWAIT_RECEIPT, _L.IDLE, _L.REVOKED}),
    # Holes to fill: AWAIT_RECEIPT → UPLOADING.
    _L.AWAIT_RECEIPT: frozenset({_L.UPLOADING, _L.IDLE, _L.REVOKED}),
    _L.SLEEPING: frozenset({_L.IDLE, _L.REVOKED}),
    _L.THROTTLED: frozenset({_L.IDLE, _L.REVOKED}),
    _L.SAFE_MODE: frozenset({_L.IDLE, _L.REVOKED}),
    _L.REVOKED: frozenset({_L.JOINING}),
}

MEMBER: Final = frozenset(Lifecycle) - {_L.UNPROVISIONED, _L.JOINING, _L.PENDING, _L.REVOKED}
"""States of a device that belongs to a fleet; after a restart each continues in IDLE."""

GATED: Final[Mapping[Lifecycle, Status]] = {
    _L.SLEEPING: Status.SLEEPING,
    _L.THROTTLED: Status.THROTTLED,
    _L.SAFE_MODE: Status.SAFE_MODE,
}
"""States in which no work is taken on, and what the aggregator is told; in all others a device is online."""


class IllegalMove(Exception):
    """A bug of ours: a move that the table does not have."""


def check_move(old: Lifecycle, new: Lifecycle) -> None:
    """Raise IllegalMove unless the table has `old` → `new`."""
    if new not in MOVES[old]:
        raise IllegalMove(f"lifecycle {old} → {new}: expected one of {sorted(MOVES[old])}")
