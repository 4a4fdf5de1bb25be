"""Who takes part in a round, at which precision, and what exactly each device is offered."""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

import msgpack
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from aggregator import bases, devices, outbox, selection, versions
from aggregator.bases import BaseModel
from aggregator.coding import Coding
from aggregator.downlink import Downlink
from aggregator.job import Job
from aggregator.merge import MAX_UPDATES
from aggregator.room import Room
from aggregator.selection import History
from aggregator.steps import announced
from aggregator.store import Device, Model, Round, RoundState, Task, TaskState
from protocol.chunks import MAX_BROADCAST_BYTES
from protocol.codec.recipe import Recipe
from protocol.messages import Offer
from protocol.precision import Precision, join, parse_several
from protocol.schema import from_map, to_map, unpack_map

FINISHED = frozenset({RoundState.ANNOUNCED, RoundState.ABORTED, RoundState.ROLLED_BACK})
OPEN_TASKS = frozenset({TaskState.OFFERED, TaskState.UPLOADING})


def newest_round(session: Session) -> Round | None:
    """The current round, or the last one."""
    return session.scalar(select(Round).order_by(Round.number.desc()).limit(1))


def tasks_of(session: Session, number: int, device: str | None = None) -> list[Task]:
    """Every task of a round, by device, or those of one device."""
    rows = select(Task).where(Task.round == number)
    if device is not None:
        rows = rows.where(Task.device == device)
    return list(session.scalars(rows.order_by(Task.device, Task.id)))


def is_over(session: Session, room: Room) -> bool:
    """Whether the job's last round is behind."""
    last = newest_round(session)
    limit = room.job.last_round
    return limit is not None and last is not None and last.number >= limit and last.state in FINISHED


# --- tasks and offers ---


def invited(session: Session, room: Room, number: int, known: Mapping[str, History]) -> list[Device]:
    """The devices that round `number` asks (`selection`), of those that are available.

    Args:
        session: where to read.
        room: the core.
        number: of the round.
        known: what is remembered of each device.
    """
    there = devices.available(session, room.job, room.clock())
    ready = selection.with_energy_left(session, there, room.clock())
    draw = {device.id: seed_of(room.job, number, device.id) for device in ready}
    return selection.choose(ready, room.job.per_round, known, draw, MAX_UPDATES)


def profiles_of(room: Room, number: int, device: Device, model: Model) -> str:
    """The precisions that round `number` asks a device for, as the offer names them."""
    return join(room.job.precisions_for(number, Precision.parse(device.precision), model.precisions))


def make_tasks(room: Room, number: int, model: Model, invited: Iterable[Device], coding: Coding) -> list[Task]:
    """A task for each device, with a fresh name and nonce, not yet offered; an offer says how much time there is.

    Once these are in the outbox, what two of them or more start from is published to all (`broadcast`).
    """
    wanted = [(device, profiles_of(room, number, device, model)) for device in invited]
    bases = _make_bases(room, number, model, {names for _, names in wanted}, coding.downlink)
    steps = _codec_steps(room, model)
    sharing = Counter(names for _, names in wanted)
    return [
        _make_task(
            room,
            number,
            device,
            names,
            bases[names],
            recipe=coding.recipe(device),
            trained=model.precisions,
            steps=steps,
            sharing=sharing[names],
        )
        for device, names in wanted
    ]


def _make_bases(
    room: Room, number: int, model: Model, wanted: Collection[str], downlink: Downlink
) -> dict[str, BaseModel]:
    master = versions.load(room, model)
    return {
        names: bases.make(room, number, names, master, seed_of(room.job, number, names), downlink)
        for names in sorted(wanted)
    }


def _codec_steps(room: Room, model: Model) -> tuple[float, ...]:
    """What is announced for a recipe that takes steps; nothing before the first round."""
    if not Recipe.parse(room.job.recipe).takes_steps or not model.version:
        return ()
    with room.store.reading() as session:
        before = session.scalar(select(Model).where(Model.version < model.version).order_by(Model.version.desc()))
    return () if before is None else announced(versions.load(room, before), versions.load(room, model))


def _make_task(
    room: Room,
    number: int,
    device: Device,
    names: str,
    base: BaseModel,
    *,
    recipe: str,
    trained: Collection[str],
    steps: tuple[float, ...],
    sharing: int,
) -> Task:
    offer = Offer(
        task=secrets.token_hex(16),
        round=number,
        architecture=room.job.architecture,
        precision=names,
        recipe=recipe,
        base=bytes.fromhex(base.digest),
        base_bytes=base.size_bytes,
        shard=room.shard,
        nonce=secrets.token_bytes(16),
        deadline_s=room.job.deadline_s,
        epochs=room.job.epochs_for(number, device.decision.get("epochs", 0)),
        batch=room.job.batch,
        learning_rate=room.job.learning_rate_for(number),
        seed=seed_of(room.job, number, device.id),
        calibrate_steps=room.job.calibrates_steps(number, trained, parse_several(names)),
        method=room.job.method,
        table=room.job.network.digest,
        codec_seed=codec_seed(room.job, number, recipe),
        steps=base.steps,
        codec_steps=steps,
        job=room.on_wire,
        broadcast=sharing > 1 and base.newest_bytes <= MAX_BROADCAST_BYTES,
    )
    return Task(
        id=offer.task,
        round=number,
        device=device.id,
        state=TaskState.OFFERED,
        precision=names,
        recipe=offer.recipe,
        base=base.digest,
        nonce=offer.nonce,
        offer=msgpack.packb(to_map(offer)),
    )


def offer_of(task: Task) -> Offer:
    """What a device is offered in a task."""
    return from_map(Offer, unpack_map(task.offer))


def offer(session: Session, room: Room, task: Task, deadline_s: float, *, awaited: bool) -> None:
    """Post a task's offer with the time that is left; `awaited` holds the round and its broadcast until it is sent."""
    kept = offer_of(task)
    message = replace(kept, deadline_s=deadline_s, broadcast=kept.broadcast and awaited)
    topic = room.topics.device(task.device, "offer")
    expires_at = room.clock() + deadline_s
    outbox.post(session, topic, message, expires_at=expires_at, round=task.round if awaited else None)


def offer_again(session: Session, room: Room, device: Device) -> None:
    """Repeat the unfinished offer of a device that came back, unchanged but for the time left."""
    current = newest_round(session)
    if current is None or current.state not in {RoundState.COLLECTING, RoundState.EXTENDED}:
        return
    for task in tasks_of(session, current.number, device.id):
        if task.state in OPEN_TASKS | {TaskState.MISSED}:
            task.state = TaskState.OFFERED
            offer(session, room, task, remaining_s(room, current), awaited=False)


def miss(session: Session, meant: ColumnElement[bool]) -> None:
    """Count no more on the updates of open tasks that are meant."""
    for task in session.scalars(select(Task).where(meant, Task.state.in_(OPEN_TASKS))):
        task.state = TaskState.MISSED


def remaining_s(room: Room, current: Round) -> float:
    """Seconds until the round's deadline."""
    duration_s = current.deadline_s if current.state is RoundState.COLLECTING else room.job.extension_s
    return room.deadlines.remaining_s(current.number, current.deadline_at, duration_s)


def codec_seed(job: Job, number: int, recipe: str) -> int:
    """What all devices of a round draw their rotations from, so that these can be undone once for all; 0 for none."""
    return seed_of(job, number, "codec") >> 31 if Recipe.parse(recipe).is_seeded else 0


def seed_of(job: Job, number: int, what: str) -> int:
    """63 bits that depend on the job's seed, the round and a name, and on nothing else."""
    return int.from_bytes(sha256(f"{job.seed}/{number}/{what}".encode()).digest()[:8]) >> 1
