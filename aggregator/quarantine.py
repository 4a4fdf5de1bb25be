"""Devices that are asked no more, for a time or until an operator lets them in again, and why.

Cause for doubt stands in the journal: an update that was refused as no honest trainer's would be, or that stood out
when its round was merged (`strikes`). A device in quarantine keeps its model and its voice; only what it learned is not
wanted. Whom time let in again is on probation: one more cause within the window, and it is out. An operator's release
forgets what was before.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from aggregator import planning
from aggregator.room import Room
from aggregator.store import Device, Task, Update
from aggregator.strikes import Strikes
from protocol.errors import Refusal

CAUSES: Final = frozenset({Refusal.NOT_FINITE, Refusal.NORM, Refusal.WRONG_SHAPE, Refusal.MALFORMED})
"""What a trainer of ours never sends; a wrong round or a late update can happen to anybody."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause for doubt, in a sentence."""

    round: int
    task: str
    reason: str


def causes(session: Session, device: str) -> list[Cause]:
    """Every cause that a device ever gave, oldest first."""
    doubtful = or_(Update.doubt != "", Update.refusal.in_([code.value for code in CAUSES]))
    rows = session.scalars(select(Update).where(Update.device == device, doubtful).order_by(*_IN_ORDER))
    return [Cause(row.round, row.task, row.doubt or row.reason) for row in rows]


def judge(session: Session, room: Room, device: Device) -> bool:
    """Shut a device out if it has given cause enough.

    Returns:
        Whether it is shut out now.
    """
    session.flush()
    since = Update.received_at > device.released_at
    rows = session.scalars(select(Update).where(Update.device == device.id, since).order_by(*_IN_ORDER)).all()
    given = [row.doubt or (row.reason if row.refusal in CAUSES else "") for row in rows]
    strikes = Strikes.parse(room.job.quarantine)
    if device.quarantined or not strikes.enough(list(map(bool, given)), on_probation=device.on_probation):
        return False
    recent = [why for why in given[-strikes.window :] if why]
    often = f"cause for doubt in {len(recent)} of its last {min(len(given), strikes.window)} rounds"
    rest_s = room.job.quarantine_rest_s
    shut_out(session, room, device, f"{often}, the last: {recent[-1]}", rest_s=rest_s)
    return True


def shut_out(session: Session, room: Room, device: Device, reason: str, *, rest_s: float = 0.0) -> None:
    """Ask a device no more, for a time or for as long as nobody lets it in; its open offers are missed."""
    now = room.clock()
    device.quarantined, device.quarantined_at = reason[:400], now
    device.quarantined_until = now + rest_s if rest_s else 0.0
    planning.miss(session, Task.device == device.id)
    room.uploads.drop(device.id)


def let_in(device: Device, now: float, *, on_probation: bool = False) -> None:
    """Ask a device again. What it did before counts no more, but on probation less is enough."""
    device.quarantined, device.quarantined_until = "", 0.0
    device.released_at, device.on_probation = now, on_probation


def let_in_rested(room: Room) -> None:
    """Let in every device of the job whose time is over, on probation.

    Called on every turn, so it looks only where time counts.
    """
    if not room.job.quarantine_rest_s:
        return
    now = room.clock()
    rested = Device.quarantined_until.between(1, now)
    over = select(Device).where(Device.job == room.name, Device.quarantined != "", rested)
    with room.store.reading() as session:
        if session.scalars(over).first() is None:
            return
    with room.store.transaction() as session:
        for device in session.scalars(over):
            let_in(device, now, on_probation=True)


_IN_ORDER: Final = (Update.received_at, Update.round, Update.task)
