"""What has changed, told once it is on disk: rounds, offers, devices, updates, models, exports and pauses.

It is read off the rows that a transaction writes, so that nobody who changes something has to think of saying so. A
device that only sends telemetry is told of when what it does changes, or every tenth of its way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session

from aggregator.store import Base, Device, Export, Model, Pause, Round, Store, Task, Update

_TENTHS: Final = 10
_OF_DEVICE: Final = ("public_key", "status", "revoked", "quarantined", "precision", "budget_j_per_day")


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that has changed.

    Attributes:
        kind: round, task, device, update, model, export or fleet.
        facts: what it is now, as JSON can hold it.
    """

    kind: str
    facts: dict[str, Any]


def watch(store: Store, tell: Callable[[Change], object]) -> None:
    """Have `tell` called after every commit, by the thread that committed, once for each change in it."""
    waiting = object()  # another's changes wait under another key

    def collect(session: Session, _: object) -> None:
        rows = [*session.new, *(row for row in session.dirty if session.is_modified(row)), *session.deleted]
        found = [change for row in rows if (change := _told(row, gone=row in session.deleted)) is not None]
        session.info.setdefault(waiting, []).extend(found)

    def committed(session: Session) -> None:
        for change in session.info.pop(waiting, []):
            tell(change)

    event.listen(store.writer, "after_flush", collect)
    event.listen(store.writer, "after_commit", committed)
    event.listen(store.writer, "after_rollback", lambda session: session.info.pop(waiting, None))


def _new(row: Base, *names: str) -> bool:
    attributes = inspect(row).attrs
    return any(attributes[name].history.added for name in names)


def _moved_on(row: Device) -> bool:
    """Whether it does something else, or is a tenth further."""
    history = inspect(row).attrs.telemetry.history
    before, now = (history.deleted or [{}])[0] or {}, row.telemetry or {}
    return bool(history.added) and _stage(before) != _stage(now)


def _stage(telemetry: dict[str, Any]) -> tuple[Any, Any, int]:
    tenth = int(_TENTHS * telemetry.get("progress", 0.0))
    return telemetry.get("lifecycle"), telemetry.get("model_version"), tenth


def _told(row: Base, *, gone: bool) -> Change | None:
    if isinstance(row, Pause):
        return Change("fleet", {"job": row.job, "paused": not gone})
    teller = _TELLERS.get(type(row))
    return teller(row) if teller else None


def _round(row: Round) -> Change | None:
    return (
        Change("round", {"job": row.job, "round": row.number, "state": row.state.value}) if _new(row, "state") else None
    )


def _task(row: Task) -> Change | None:
    if not _new(row, "state"):
        return None
    facts = {"round": row.round, "device": row.device, "state": row.state.value, "note": row.note or ""}
    return Change("task", {"job": row.job, **facts})


def _device(row: Device) -> Change | None:
    if not (_new(row, *_OF_DEVICE) or _moved_on(row)):
        return None
    telemetry = row.telemetry or {}
    facts = {
        "device": row.id,
        "job": row.job,
        "status": "revoked" if row.revoked else (row.status or "offline"),
        "quarantined": row.quarantined or "",
        "lifecycle": telemetry.get("lifecycle", ""),
        "progress": telemetry.get("progress", 0.0),
        "precision": row.precision or "",
    }
    return Change("device", facts)


def _update(row: Update) -> Change | None:
    if not _new(row, "accepted"):
        return None  # what is noted of it later is no news
    facts = {
        "job": row.job,
        "round": row.round,
        "device": row.device,
        "accepted": row.accepted,
        "code": row.refusal or "",
        "payload_bytes": row.payload_bytes,
    }
    return Change("update", facts)


def _model(row: Model) -> Change | None:
    if not _new(row, "digest"):
        return None
    return Change("model", {"job": row.job, "version": row.version, "digest": row.digest})


def _export(row: Export) -> Change | None:
    if not _new(row, "digest"):
        return None
    names = ("job", "version", "precision", "digest", "model_bytes", "accuracy")
    return Change("export", {name: getattr(row, name) for name in names})


_TELLERS: Final[dict[type[Base], Callable[[Any], Change | None]]] = {
    Round: _round,
    Task: _task,
    Device: _device,
    Update: _update,
    Model: _model,
    Export: _export,
}
