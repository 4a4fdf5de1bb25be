"""What a door is told when a command cannot be done."""

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a command, for a door to translate (404, 403, 409, 422)."""

    NOT_FOUND = "not-found"
    FORBIDDEN = "forbidden"
    CONFLICT = "conflict"
    INVALID = "invalid"


class CommandRefused(Exception):
    """A command that cannot be done; nothing was changed."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
