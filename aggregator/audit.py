"""The audit log: who commanded what, written in the transaction that did it; and what was refused.

It is bounded: the oldest rows go. What strangers can cause in any number (wrong tokens, forged messages) is counted,
not listed, so that they cannot push out what counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

from sqlalchemy import delete
from sqlalchemy.orm import Session

from aggregator.roles import Actor, Role
from aggregator.store import Audit

KEPT: Final = 100_000
"""Rows: some 20 MB, and years of a fleet's commands."""
TRIMMED_EVERY: Final = 256
DONE: Final = "done"
SECRETS: Final = frozenset({"token", "proof", "request"})
TEXT_AT_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Deed:
    """One command.

    Attributes:
        actor: who gave it.
        action: its name.
        object: what it was given for: a device, a round, …; empty for the fleet.
        detail: what else was said, secrets left out.
    """

    actor: Actor
    action: str
    object: str = ""
    detail: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, actor: Actor, act: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> "Deed":
        """A command as a function of the room: its first argument, if that is a name, is what it is about."""
        said = dict(list(signature(act).bind(None, *arguments, **named).arguments.items())[1:])
        about = said.pop(next(iter(said))) if arguments and isinstance(arguments[0], str) else ""
        detail = {name: _plain(value) for name, value in said.items() if name not in SECRETS}
        return cls(actor, act.__name__, about, detail)


def record(session: Session, deed: Deed, now: float, outcome: str = DONE) -> None:
    """Write a row, and every now and then drop the oldest."""
    row = Audit(
        at=now,
        who=deed.actor.name,
        role=deed.actor.role.value,
        action=deed.action,
        object=deed.object,
        detail=dict(deed.detail or {}),
        outcome=outcome[:TEXT_AT_MOST],
    )
    session.add(row)
    session.flush()
    if row.id % TRIMMED_EVERY == 0:
        session.execute(delete(Audit).where(Audit.id <= row.id - KEPT))


def by_device(session: Session, device: str, action: str, now: float, **detail: str) -> None:
    """Write a row about what a device did by itself."""
    record(session, Deed(Actor(device, Role.DEVICE), action, device, detail), now)


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)[:TEXT_AT_MOST]
