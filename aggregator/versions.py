"""Committed versions of the fleet's model; the newest one is what everybody works with."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator.model import GlobalModel
from aggregator.room import Room
from aggregator.start import starting_model
from aggregator.store import Model
from protocol.precision import MAX_PROFILES


class JobMismatch(Exception):
    """The stored model is not one the job can train; the message says what to change."""


def prepare(room: Room) -> None:
    """Make version 0 in an empty store, or check that the stored model is the job's. Call once at start.

    Version 0 is the room's starting point if it has one, which is not looked at again later.

    Raises:
        JobMismatch: the fleet's model, or what it is to start from, has another architecture than the job.
        StartError: the file to start from is not usable.
        BlobError: the fleet's model is missing or damaged.
    """
    with room.store.reading() as session:
        model = newest(session)
    if model is not None:
        _check_architecture(room, load(room, model))
        return
    first = _first(room)
    digest = room.blobs.put(first.to_bytes())
    with room.store.transaction() as session:
        session.add(Model(version=0, digest=digest, made_at=room.clock(), precisions=sorted(first.profiles)))


def newest(session: Session) -> Model | None:
    """The newest version; None only before `prepare`."""
    return session.scalar(select(Model).order_by(Model.version.desc()).limit(1))


def current(session: Session) -> Model:
    """The newest version.

    Raises:
        JobMismatch: `prepare` was never called.
    """
    model = newest(session)
    if model is None:
        raise JobMismatch("the store holds no model: call prepare first")
    return model


def load(room: Room, model: Model) -> GlobalModel:
    """A version's tensors.

    Raises:
        BlobError: the file is missing or damaged.
        ModelError: it is no global model of this version.
    """
    return GlobalModel.from_bytes(room.blobs.get(model.digest))


def _first(room: Room) -> GlobalModel:
    if room.start is None:
        return GlobalModel.fresh(room.job.architecture, room.job.seed)
    model = starting_model(room.start)
    if model.architecture != room.job.architecture:
        raise JobMismatch(
            f"job architecture {room.job.architecture!r}: {room.start} holds {model.architecture!r}; leave the"
            " architecture out to take the file's, or start from another file"
        )
    profiles = {*model.profiles, *map(str, room.job.precisions)}
    if len(profiles) > MAX_PROFILES:
        raise JobMismatch(
            f"job precisions and those of {room.start} are {len(profiles)} together, {', '.join(sorted(profiles))}:"
            f" expected at most {MAX_PROFILES}"
        )
    return model


def _check_architecture(room: Room, model: GlobalModel) -> None:
    if model.architecture != room.job.architecture:
        raise JobMismatch(
            f"job architecture {room.job.architecture!r}: the fleet's model in {room.store.path} is"
            f" {model.architecture!r}; change the job back, or start a new fleet in another state folder"
        )
