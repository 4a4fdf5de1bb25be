"""Whose fault it is: ours (`LocalProtocolError`) or the peer's (`RemoteProtocolError`).

Any bytes at all given to a decoder of this package raise only `RemoteProtocolError`. Its `refusal` is the stable
code that the aggregator counts and the device is told.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """Why a message was turned away. The values are wire format: never rename, only add."""

    INCOMPLETE = "incomplete"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too-large"
    FORGED = "forged"
    REPLAYED = "replayed"
    UNKNOWN_DEVICE = "unknown-device"
    FOREIGN_DEVICE = "foreign-device"
    REVOKED = "revoked"
    UNKNOWN_TASK = "unknown-task"
    WRONG_ROUND = "wrong-round"
    WRONG_BASE = "wrong-base"
    WRONG_RECIPE = "wrong-recipe"
    WRONG_PRECISION = "wrong-precision"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DIGEST = "wrong-digest"
    LATE = "late"
    NOT_FINITE = "not-finite"
    NORM = "norm"
    QUARANTINED = "quarantined"


class ProtocolError(Exception):
    """The base of everything this package raises on purpose."""


class LocalProtocolError(ProtocolError):
    """We were about to send nonsense: a bug or a bad argument on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer sent nonsense. `refusal` is the code it will be told."""

    refusal = Refusal.MALFORMED

    def __init__(self, message: str, refusal: Refusal | None = None) -> None:
        super().__init__(message)
        if refusal is not None:
            self.refusal = refusal


class Incomplete(RemoteProtocolError):
    """The bytes end too early."""

    refusal = Refusal.INCOMPLETE


class Malformed(RemoteProtocolError):
    """The bytes break a rule of SPEC.md."""

    refusal = Refusal.MALFORMED


class Unsupported(RemoteProtocolError):
    """The bytes may be right, for a version, recipe or architecture that this side does not know."""

    refusal = Refusal.UNSUPPORTED


class Forged(RemoteProtocolError):
    """The signature does not belong to the sender and topic."""

    refusal = Refusal.FORGED


class Replayed(RemoteProtocolError):
    """The (boot, sequence) pair was seen before, or is older than one that was."""

    refusal = Refusal.REPLAYED
