"""The base model of a round, as devices get it: coded once for each set of precisions, and kept among the blobs.

By steps, each set has a chain of states. The table `steps` says which payload led from which to which; the newest
state is a blob itself, so that whoever holds none of the others can fetch it whole.
"""

import logging
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator.blobs import BlobError
from aggregator.downlink import Downlink, next_step
from aggregator.model import GlobalModel, base_payload
from aggregator.room import Room
from aggregator.store import BaseStep
from protocol.messages import MAX_STEPS, Step
from protocol.precision import parse_several

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What devices of one set of precisions train from: a blob, and ways to it that may be shorter."""

    digest: str
    size_bytes: int
    steps: tuple[Step, ...] = ()

    @property
    def newest_bytes(self) -> int:
        """What every device needs at least."""
        return self.steps[-1].payload_bytes if self.steps else self.size_bytes


def make(room: Room, number: int, names: str, master: GlobalModel, seed: int, downlink: Downlink) -> BaseModel:
    """The base model of round `number` for the precisions `names`; asked again, it is the same one."""
    precisions = parse_several(names)
    if not downlink.by_steps:
        payload = base_payload(master, precisions, str(downlink.recipe), seed)
        return BaseModel(room.blobs.put(payload), len(payload))
    with room.store.reading() as session:
        newest = _newest(session, names)
    if newest is None or newest.round != number:
        before, state = _held(room, newest)
        payload, after = next_step(master, precisions, state, downlink.recipe, seed)
        newest = BaseStep(
            precision=names,
            round=number,
            before=before,
            digest=room.blobs.put(payload),
            payload_bytes=len(payload),
            state=room.blobs.put(after),
            state_bytes=len(after),
        )
        with room.store.transaction() as session:
            session.add(newest)
    with room.store.reading() as session:
        return BaseModel(newest.state, newest.state_bytes, _steps(session, newest))


def _newest(session: Session, names: str) -> BaseStep | None:
    rows = select(BaseStep).where(BaseStep.precision == names)
    return session.scalar(rows.order_by(BaseStep.id.desc()).limit(1))


def _held(room: Room, newest: BaseStep | None) -> tuple[str, bytes | None]:
    """What devices hold, and its name; nothing to begin anew: also where it was lost, which costs only bytes."""
    if newest is None:
        return "", None
    try:
        return newest.state, room.blobs.get(newest.state)
    except BlobError as error:
        log.warning("base model at %s: %s; devices fetch a new one whole", newest.precision, error)
        return "", None


def _steps(session: Session, newest: BaseStep) -> tuple[Step, ...]:
    """The last steps to a state, oldest first, as many as are less to fetch than the state itself."""
    rows = select(BaseStep).where(BaseStep.precision == newest.precision, BaseStep.id <= newest.id)
    chain: list[Step] = []
    wanted, left_bytes = newest.state, newest.state_bytes
    for row in session.scalars(rows.order_by(BaseStep.id.desc()).limit(MAX_STEPS)):
        left_bytes -= row.payload_bytes
        if row.state != wanted or left_bytes <= 0:
            break
        chain.append(Step(bytes.fromhex(row.before), bytes.fromhex(row.digest), row.payload_bytes))
        wanted = row.before
    return tuple(reversed(chain))
