"""The one room behind both doors: what a message or a command does. Each call is one transaction.

MQTT brings bytes to `on_message`; HTTP and the command line call the commands below it. Where a device is named, any
room of the fleet will do: what is done happens in the room of the device's job.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from math import isfinite
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from aggregator import (
    assignment,
    certificates,
    devices,
    exports,
    ingest,
    outbox,
    placing,
    planning,
    quarantine,
    refusals,
    rounds,
    versions,
)
from aggregator.faults import CommandRefused, Fault
from aggregator.joining import check_group
from aggregator.room import Room
from aggregator.store import Device, JobSession, Pause, Round, RoundState, Task, TaskState
from protocol.envelope import Envelope, open_envelope
from protocol.errors import Malformed, Refusal, RemoteProtocolError
from protocol.messages import Birth, Decline, Manifest, Outcome, Receipt, State, Telemetry
from protocol.signing import VerifyKey
from protocol.topics import Door, Upward

# --- messages ---


def on_message(room: Room, topic: str, data: bytes) -> None:
    """Take one MQTT message. Whatever a peer sends is handled, or refused, counted and, if it is an upload, answered.

    Raises:
        OSError, sqlalchemy.exc.OperationalError: the disk is full or failing; the message counts as not received.
    """
    device = refusals.UNKNOWN
    try:
        where = room.topics.parse_upward(topic)
        device = where.device
        if where.door is Door.CHUNK:
            for each in room.rooms.values():
                ingest.on_chunk(each, device, where.task, where.chunk, data)
            return
    except RemoteProtocolError as error:
        with room.store.transaction() as session:
            refusals.count(session, device, error.refusal)
        return
    with room.store.transaction() as session:
        _on_envelope(session, room, where, topic, data)


def foresee(session: Session, room: Room, topics: Iterable[str]) -> list[object]:
    """Rows that messages on these topics will ask for, by a few questions instead of several for each message.

    Hold them while the messages are handled: a session remembers only what somebody holds.
    """
    devices, tasks = set[str](), set[str]()
    for topic in topics:
        with suppress(RemoteProtocolError):  # that is told when the message is handled
            where = room.topics.parse_upward(topic)
            devices.add(where.device)
            tasks.add(where.task)
    members = session.scalars(select(Device).where(Device.id.in_(devices))).all()
    asked = session.scalars(select(Task).where(Task.id.in_(tasks))).all()
    rounds_of = {(task.job, task.round) for task in asked}
    running = session.scalars(select(Round).where(tuple_(Round.job, Round.number).in_(rounds_of))).all()
    return [*members, *asked, *running]


def _on_envelope(session: JobSession, room: Room, where: Upward, topic: str, data: bytes) -> None:
    try:
        envelope = open_envelope(data, topic=topic, key_of=partial(_key_of, session, where.device))
        device = session.get_one(Device, envelope.sender)
        devices.admit_envelope(device, envelope)
        room = _room_of(session, room, device)
    except RemoteProtocolError as error:
        # No receipt: neither a stranger nor a broker that repeats an old manifest may empty a device's outbox.
        refusals.count(session, where.device, error.refusal)
        return
    try:
        _dispatch(session, room, where, device, envelope)
    except RemoteProtocolError as error:
        refusals.count(session, device.id, error.refusal)
        if isinstance(envelope.message, Manifest) and where.door is Door.MANIFEST:
            _answer(session, room, where, envelope.message, error)


def _room_of(session: JobSession, room: Room, device: Device) -> Room:
    """Enter the room of a device's job."""
    session.enter(device.job)
    return room.rooms[device.job]


def _key_of(session: Session, expected: str, sender: str) -> VerifyKey | None:
    if sender != expected:
        raise RemoteProtocolError(f"sender {sender!r} on a topic of {expected!r}", Refusal.FOREIGN_DEVICE)
    device = session.get(Device, sender)
    return None if device is None else VerifyKey(device.public_key)


def _dispatch(session: Session, room: Room, where: Upward, device: Device, envelope: Envelope) -> None:
    if device.revoked:
        raise RemoteProtocolError(f"device {device.id} was revoked", Refusal.REVOKED)
    match where.door, envelope.message:
        case Door.STATE, State() as state:
            devices.on_state(device, state)
        case Door.BIRTH, Birth() as birth:
            _on_birth(session, room, device, birth)
        case Door.TELEMETRY, Telemetry() as telemetry:
            devices.on_telemetry(device, telemetry, room.clock())
        case Door.RESPONSE, Decline() as decline:
            _require_task(where, decline.task)
            _on_decline(session, room, device, decline)
        case Door.MANIFEST, Manifest() as manifest:
            _require_task(where, manifest.task)
            ingest.on_manifest(session, room, device.id, manifest)
        case door, message:
            raise Malformed(f"{type(message).__name__} on topic {door}: this topic carries something else")
    if not isinstance(envelope.message, State | Birth):
        device.seen_at = room.clock()


def _require_task(where: Upward, task: str) -> None:
    if task != where.task:
        raise Malformed(f"message for task {task!r} on the topic of {where.task!r}")


def _on_birth(session: Session, room: Room, device: Device, birth: Birth) -> None:
    """A device introduces itself: give it a precision, its open offer again, and the model it should run."""
    returned, before = birth.session > device.session, devices.facts(device.birth)
    if not devices.on_birth(device, birth, room.clock()):
        return
    if not device.decision or _plain(devices.facts(device.birth)) != before:
        _assign(session, room, device)
    if returned and not device.quarantined:
        planning.offer_again(session, room, device)
    exports.offer_model(session, room, device)


def _plain(values: dict[str, Any]) -> Any:
    """As it comes back from the store, where tuples are lists."""
    return json.loads(json.dumps(values))


def _on_decline(session: Session, room: Room, device: Device, decline: Decline) -> None:
    task = session.get(Task, decline.task)
    if task is None or task.device != device.id:
        raise RemoteProtocolError(f"task {decline.task} was not offered to {device.id}", Refusal.UNKNOWN_TASK)
    device.retry_at = room.clock() + min(decline.retry_after_s, devices.MAX_RETRY_S)
    if task.state in planning.OPEN_TASKS and session.get_one(Round, task.round).state in rounds.ACCEPTING:
        task.state, task.note = TaskState.DECLINED, f"{decline.reason}: {decline.detail}"
        room.uploads.drop(device.id)


def _answer(session: Session, room: Room, where: Upward, manifest: Manifest, error: RemoteProtocolError) -> None:
    """Tell a device that its update will never count, so that it need not keep it."""
    receipt = Receipt(
        where.task, manifest.round, manifest.digest, Outcome.REFUSED, error.refusal.value, str(error)[:400]
    )
    outbox.post(session, room.topics.receipt(where.device, where.task), receipt)


def _assign(session: Session, room: Room, device: Device) -> None:
    trained = versions.current(session).precisions
    assignment.assign(session, room, device, trained, over=planning.is_over(session, room))


# --- commands ---


def set_budget(room: Room, device: str, joules: float | None) -> None:
    """Set the operator's budget of a device in J per day; None gives back the device's own.

    Zero is zero: nothing that takes energy fits it. `devices.MAINS_J_PER_DAY` is mains power.

    Raises:
        CommandRefused: NOT_FOUND device; INVALID budget.
    """
    if joules is not None and not (isfinite(joules) and joules >= 0):
        raise CommandRefused(Fault.INVALID, f"budget = {joules} J/day: expected 0 or more")
    with room.store.transaction() as session:
        member = _member(session, device)
        room = _room_of(session, room, member)
        member.budget_j_per_day = joules
        if member.birth:
            _assign(session, room, member)
            exports.offer_model(session, room, member)


def set_group(room: Room, device: str, group: str) -> None:
    """Count a device among a group, or among none; it then works for that group's job.

    Raises:
        CommandRefused: NOT_FOUND device; INVALID name.
    """
    check_group(group)
    with room.store.transaction() as session:
        member = _member(session, device)
        member.group = group
        if placing.place(session, room, member) and member.birth:
            room = room.rooms[member.job]
            _assign(session, room, member)
            exports.offer_model(session, room, member)


def revoke(room: Room, device: str) -> None:
    """Shut a device out for good: its open task is missed, its messages are refused from now on.

    Raises:
        CommandRefused: NOT_FOUND device.
    """
    with room.store.transaction() as session:
        member = _member(session, device)
        member.revoked = True
        certificates.revoke(session, device, room.clock())
        room = _room_of(session, room, member)
        planning.miss(session, Task.device == device)
    room.uploads.drop(device)
    room.cut_off(device)


def shut_out(room: Room, device: str, reason: str) -> None:
    """Put a device into quarantine until it is released: it is asked no more, and what it sends is refused.

    What of it waits to be merged is left out. It keeps its model.

    Raises:
        CommandRefused: NOT_FOUND device; INVALID reason.
    """
    if not reason:
        raise CommandRefused(Fault.INVALID, "reason of a quarantine is empty: expected why, for whoever asks later")
    with room.store.transaction() as session:
        member = _member(session, device)
        quarantine.shut_out(session, _room_of(session, room, member), member, reason)


def release(room: Room, device: str) -> None:
    """Ask a device again; what it did before counts no more.

    Raises:
        CommandRefused: NOT_FOUND device; CONFLICT, it is not in quarantine.
    """
    with room.store.transaction() as session:
        member = _member(session, device)
        if not member.quarantined:
            raise CommandRefused(Fault.CONFLICT, f"device {device!r} is not in quarantine")
        quarantine.let_in(member, room.clock())


def _member(session: Session, device: str) -> Device:
    member = session.get(Device, device)
    if member is None:
        raise CommandRefused(Fault.NOT_FOUND, f"device {device!r} is not a member of the fleet")
    return member


def abort_round(room: Room) -> int:
    """Give up the current round and return its number.

    Raises:
        CommandRefused: CONFLICT, no round is running.
    """
    with room.store.reading() as session:
        current = planning.newest_round(session)
    if current is None or RoundState.ABORTED not in rounds.MOVES[current.state]:
        raise CommandRefused(Fault.CONFLICT, "no round is running: there is nothing to abort")
    rounds.abort(room, current.number, "aborted by the operator")
    return current.number


def go_back(room: Room, version: int) -> int:
    """Make an older version of the model the current one, and return the number that it now has.

    Raises:
        CommandRefused: NOT_FOUND version; CONFLICT, a round is running.
    """
    try:
        return rounds.go_back(room, version)
    except KeyError as error:
        raise CommandRefused(Fault.NOT_FOUND, f"model version {version} is not known") from error
    except rounds.IllegalMove as error:
        raise CommandRefused(Fault.CONFLICT, str(error)) from error


def pause(room: Room) -> None:
    """Open no further round; the current one goes on."""
    with room.store.transaction() as session:
        session.merge(Pause(job=room.name, because=""))


def resume(room: Room) -> None:
    """Open rounds again."""
    with room.store.transaction() as session:
        pause = session.get(Pause, ())
        if pause is not None:
            session.delete(pause)
