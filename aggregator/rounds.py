"""A round is a table of states; each move is one transaction that also holds what must be published.

    PLANNED → OFFERED → COLLECTING → MERGING → VALIDATING → COMMITTED → ANNOUNCED
                 ↑          ↓ ↘        ↑           ↓
                 │          ↓  EXTENDED        ROLLED_BACK
                 └─────── STARVED ←┘             ABORTED from anywhere before COMMITTED

Whatever must survive a kill is on disk before the move that depends on it: blobs first, then the rows that name
them. After a restart `advance` goes on from the state it finds; a step that was interrupted is done again and, being
a function of what is on disk, does the same.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from aggregator import (
    assignment,
    broadcast,
    devices,
    exports,
    ledger,
    optimizers,
    outbox,
    pacing,
    planning,
    quarantine,
    selection,
    staleness,
    versions,
)
from aggregator.blobs import BlobError
from aggregator.coding import Coding
from aggregator.merge import MergeError
from aggregator.merging import merge_journal
from aggregator.model import GlobalModel, ModelError
from aggregator.planning import OPEN_TASKS, newest_round, remaining_s, tasks_of
from aggregator.rates.base import BudgetError
from aggregator.room import Room
from aggregator.store import Device, Export, Model, Pause, Round, RoundState, Task, TaskState, Update
from export.errors import ExportError
from protocol import messages
from protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)

MOVES: Final[Mapping[RoundState, frozenset[RoundState]]] = MappingProxyType(
    {
        RoundState.PLANNED: frozenset({RoundState.OFFERED, RoundState.ABORTED}),
        RoundState.OFFERED: frozenset({RoundState.COLLECTING, RoundState.ABORTED}),
        RoundState.COLLECTING: frozenset(
            {RoundState.EXTENDED, RoundState.MERGING, RoundState.STARVED, RoundState.ABORTED}
        ),
        RoundState.EXTENDED: frozenset({RoundState.MERGING, RoundState.STARVED, RoundState.ABORTED}),
        RoundState.STARVED: frozenset({RoundState.OFFERED, RoundState.MERGING, RoundState.ABORTED}),
        RoundState.MERGING: frozenset({RoundState.VALIDATING, RoundState.ABORTED}),
        RoundState.VALIDATING: frozenset({RoundState.COMMITTED, RoundState.ROLLED_BACK, RoundState.ABORTED}),
        RoundState.COMMITTED: frozenset({RoundState.ANNOUNCED}),
        RoundState.ANNOUNCED: frozenset(),
        RoundState.ABORTED: frozenset(),
        RoundState.ROLLED_BACK: frozenset(),
    }
)

ACCEPTING: Final = frozenset({RoundState.OFFERED, RoundState.COLLECTING, RoundState.EXTENDED, RoundState.STARVED})
"""States in which a round takes updates."""


FAILED: Final = frozenset({RoundState.ABORTED, RoundState.ROLLED_BACK})
"""States after which the job rests a while: what failed once may fail again at once."""


class IllegalMove(Exception):
    """A round was about to go where `MOVES` does not let it: a bug, or an abort that came too late."""


def advance(room: Room) -> bool:
    """Make at most one transition, or else one missing export. Call again until nothing moves.

    Returns:
        Whether something moved.

    Raises:
        ExportError: a missing export does not agree with its reference.
        OSError: the disk is full or failing; the round stays where it is and the call can be repeated.
    """
    with room.store.reading() as session:
        current = newest_round(session)
    moved = _STEPS[current.state](room, current) if current and current.state in _STEPS else _plan(room, current)
    return moved or exports.keep_missing(room)


def abort(room: Room, number: int, note: str) -> None:
    """Give up a round; the old model stays, and so does the journal.

    Raises:
        IllegalMove: it is committed or aborted already.
    """
    _fail(room, number, RoundState.ABORTED, note)


def _fail(room: Room, number: int, to: RoundState, note: str) -> None:
    """End a round without a model; the next one rests first."""
    with _move(room, number, to) as (session, current):
        current.note, current.closed_at = note[:400], room.clock()
        current.deadline_at = room.clock() + room.job.extension_s
        planning.miss(session, Task.round == number)


@contextmanager
def _move(room: Room, number: int, to: RoundState) -> Iterator[tuple[Session, Round]]:
    """One transition: the block's changes, the new state and its announcement in one transaction."""
    with room.store.transaction() as session:
        current = session.get_one(Round, number)
        if to not in MOVES[current.state]:
            raise IllegalMove(f"round {number} is {current.state}: it cannot become {to}")
        current.state = to
        if to not in ACCEPTING and not room.job.max_staleness:
            room.uploads.clear()
        yield session, current
        _announce_state(session, room, current)
    room.on_transition(number, to)


def _announce_state(session: Session, room: Room, current: Round) -> None:
    version = versions.current(session).version
    state = messages.RoundState(current.number, current.state.value, version, room.on_wire)
    awaited = current.number if current.state is RoundState.COMMITTED else None
    outbox.post(session, room.topics.round_state(room.on_wire), state, retain=True, round=awaited)


# --- opening ---


def _plan(room: Room, last: Round | None) -> bool:
    """Open the next round, if it is time and enough devices are there."""
    number = 1 if last is None else last.number + 1
    quarantine.let_in_rested(room)
    with room.store.reading() as session:
        if session.get(Pause, ()) or planning.is_over(session, room) or _resting(room, last):
            return False
        if room.space.is_short():
            return False
        if devices.may_be_available(session, room.clock()) < room.job.min_devices:
            return False
        at_work = staleness.at_work(session, room, number)
        known = selection.histories(session, number)
        invited = [device for device in planning.invited(session, room, number, known) if device.id not in at_work]
        model = versions.current(session)
    if len(invited) + len(at_work) < room.job.min_devices:
        return False
    try:
        decided = pacing.decide(room, number, model, invited)
    except BudgetError as error:
        log.error("round %d is not opened, and the fleet paused: %s", number, error)  # noqa: TRY400 (says it all)
        with room.store.transaction() as session:
            session.merge(Pause(job=room.name, because=str(error)))
        return False
    tasks = planning.make_tasks(room, number, model, invited, Coding.of(room.job, number, decided))
    with room.store.transaction() as session:
        current = Round(
            number=number,
            state=RoundState.PLANNED,
            base_version=model.version,
            opened_at=room.clock(),
            coding=decided,
            deadline_s=selection.deadline_s(invited, known, room.job.deadline_factor, room.job.deadline_s),
        )
        session.add(current)
        session.flush()
        session.add_all(tasks)
        _announce_state(session, room, current)
    room.on_transition(number, RoundState.PLANNED)
    return True


def _resting(room: Room, last: Round | None) -> bool:
    """Whether the last round failed and its pause is not over."""
    return last is not None and last.state in FAILED and remaining_s(room, last) > 0


def _offer(room: Room, current: Round) -> bool:
    """PLANNED → OFFERED."""
    with _move(room, current.number, RoundState.OFFERED) as (session, _):
        for task in tasks_of(session, current.number):
            planning.offer(session, room, task, current.deadline_s, awaited=True)
    return True


def _offer_rest(room: Room, current: Round) -> bool:
    """STARVED → MERGING if enough came late; else, after a pause, → OFFERED to whoever is there and owes an update."""
    with room.store.reading() as session:
        tasks = tasks_of(session, current.number)
        tally = _Tally.of(session, current.number)
        if _ready(session, room, current, tally) >= room.job.quorum_of(tally.offered):
            return _merge_now(room, current)
        if remaining_s(room, current) > 0:
            return False
        served = {task.device for task in tasks if task.state is TaskState.ACCEPTED}
        known = selection.histories(session, current.number)
        asked = planning.invited(session, room, current.number, known)
        absent = [device for device in asked if device.id not in served]
        model = session.get_one(Model, current.base_version)
    if not absent:
        return False
    waiting = {task.device: task.id for task in tasks if task.state in OPEN_TASKS | {TaskState.MISSED}}
    fresh = [device for device in absent if device.id not in waiting]
    made = planning.make_tasks(room, current.number, model, fresh, Coding.of(room.job, current.number, current.coding))
    with _move(room, current.number, RoundState.OFFERED) as (session, _):
        planning.miss(session, Task.round == current.number)
        again = [session.get_one(Task, waiting[device.id]) for device in absent if device.id in waiting]
        session.add_all(made)
        for task in [*again, *made]:
            task.state = TaskState.OFFERED
            planning.offer(session, room, task, current.deadline_s, awaited=True)
    return True


# --- collecting ---


@dataclass(frozen=True, slots=True)
class _Tally:
    """How a round stands. A device asked twice counts once; one that left while the round starved does not count."""

    offered: int
    accepted: int
    open: int

    @classmethod
    def of(cls, session: Session, number: int) -> "_Tally":
        """Counted by the database: asked on every turn of the coordinator, of a thousand tasks."""
        count = func.count()
        of_round = select(count).where(Task.round == number)
        offered = select(func.count(distinct(Task.device))).where(Task.round == number, Task.state != TaskState.MISSED)
        accepted = of_round.where(Task.state == TaskState.ACCEPTED)
        still_open = of_round.where(Task.state.in_(OPEN_TASKS))
        return cls(*(session.scalar(rows) or 0 for rows in (offered, accepted, still_open)))


def _collect(room: Room, current: Round) -> bool:
    """OFFERED → COLLECTING once every offer is with the broker; only now does the time run, and is broadcast."""
    with room.store.reading() as session:
        if outbox.waiting(session, current.number):
            return False
    with _move(room, current.number, RoundState.COLLECTING) as (session, moved):
        moved.deadline_at = room.clock() + current.deadline_s
        ledger.book_broadcast(session, room, current.number)
    with room.store.reading() as session:
        for topic, piece in broadcast.packets(room, session, current.number):
            room.broadcast(topic, piece)
    return True


def _close(room: Room, current: Round) -> bool:
    """COLLECTING or EXTENDED → MERGING, EXTENDED or STARVED."""
    job, time_is_up, extended = room.job, remaining_s(room, current) <= 0, current.state is RoundState.EXTENDED
    with room.store.reading() as session:
        tally = _Tally.of(session, current.number)
        ready = _ready(session, room, current, tally)
        owed = tally.open + len(staleness.at_work(session, room, current.number))
    if not owed:
        return _merge_now(room, current) if ready else _starve(room, current)
    has_all = 0 < (job.buffer or job.per_round) <= ready
    enough = ready >= job.quorum_of(tally.offered)
    if has_all or (enough and (extended or time_is_up)):
        return _merge_now(room, current)
    if not time_is_up:
        return False
    return _starve(room, current) if extended else _extend(room, current)


def _ready(session: Session, room: Room, current: Round, tally: _Tally) -> int:
    """Updates that could be merged now."""
    return staleness.waiting(session, room, current) if room.job.buffer else tally.accepted


def _merge_now(room: Room, current: Round) -> bool:
    """The set of updates is fixed with the move: what comes from now on waits for the next round."""
    with _move(room, current.number, RoundState.MERGING) as (session, moved):
        for update in session.scalars(select(Update).where(staleness.waits(room, moved))):
            update.merged = moved.number
        return True


def _extend(room: Room, current: Round) -> bool:
    with _move(room, current.number, RoundState.EXTENDED) as (session, moved):
        moved.deadline_at = room.clock() + room.job.extension_s
        for task in tasks_of(session, current.number):
            if task.state in OPEN_TASKS:
                planning.offer(session, room, task, room.job.extension_s, awaited=False)
    return True


def _starve(room: Room, current: Round) -> bool:
    with _move(room, current.number, RoundState.STARVED) as (_, moved):
        moved.deadline_at = room.clock() + room.job.extension_s
    return True


# --- closing ---


def _merge(room: Room, current: Round) -> bool:
    """MERGING → VALIDATING: the base and every accepted update of the journal make the candidate."""
    try:
        with room.timed("merge"):
            merged, spreads, doubts = merge_journal(room, current)
            candidate, memory = _stepped(room, current, merged)
    except (BlobError, ModelError, MergeError, RemoteProtocolError) as error:
        abort(room, current.number, f"merging failed: {error}")
        return True
    digest, remembered = room.blobs.put(candidate.to_bytes()), room.blobs.put(memory) if memory else ""
    with _move(room, current.number, RoundState.VALIDATING) as (session, moved):
        moved.candidate, moved.memory = digest, remembered
        moved.coding = pacing.with_updates(session, room, moved, spreads)
        for task, doubt in doubts.items():
            update = session.get_one(Update, task)
            update.doubt = doubt
            quarantine.judge(session, room, session.get_one(Device, update.device))
    return True


def _stepped(room: Room, current: Round, merged: GlobalModel) -> tuple[GlobalModel, bytes]:
    """What the job's optimizer makes of the average, and what it remembers; a calibration is no step."""
    optimizer = optimizers.parse(room.job.optimizer)
    if not optimizer.slots or room.job.calibrates(current.number):
        return merged, b""
    with room.store.reading() as session:
        base = versions.load(room, session.get_one(Model, current.base_version))
        before = session.get(Round, current.base_version)
    memory = room.blobs.get(before.memory) if before is not None and before.memory else b""
    return optimizers.stepped(base, merged, optimizer, memory)


def _validate(room: Room, current: Round) -> bool:
    """VALIDATING → COMMITTED if the candidate is finite, every export agrees and the gate lets it pass."""
    number = current.number
    try:
        candidate = GlobalModel.from_bytes(room.blobs.get(current.candidate))
        with room.store.reading() as session:
            choices = assignment.choose_all(session, room, candidate.profiles, over=number == room.job.last_round)
        kept = [exports.keep(room, candidate, number, name) for name in _in_use(choices, candidate)]
    except (BlobError, ModelError, ExportError) as error:
        abort(room, number, f"validation failed: {error}")
        return True
    if (loss := _too_much_lost(room, current, kept)) is not None:
        _fail(room, number, RoundState.ROLLED_BACK, f"rolled back: {loss}")  # the candidate is kept to be looked at
        return True
    with _move(room, number, RoundState.COMMITTED) as (session, moved):
        moved.closed_at = room.clock()
        trained = sorted(candidate.profiles)
        session.add(Model(version=number, digest=current.candidate, made_at=room.clock(), precisions=trained))
        session.flush()
        held = exports.register(session, number, kept)  # else every device would ask the database for its own
        if room.job.buffer:
            staleness.give_up(session, room, number)
        else:
            planning.miss(session, Task.round == number)
        for device in devices.members(session):
            assignment.apply(device, choices[device.id])
            exports.offer_version(session, room, device, number, round=number)
        del held
    return True


def _too_much_lost(room: Room, current: Round, kept: Iterable[exports.Kept]) -> str | None:
    """Where the candidate is too much worse than the model it would replace, if it is, and if that is known."""
    limit = room.job.gate_points
    if not limit:
        return None
    with room.store.reading() as session:
        rows = select(Export.precision, Export.accuracy).where(Export.version == current.base_version)
        before = {precision: accuracy for precision, accuracy in session.execute(rows) if accuracy is not None}
    for made in kept:
        if made.accuracy is not None and made.precision in before:
            lost_points = 100 * (before[made.precision] - made.accuracy)
            if lost_points > limit:
                was, is_ = before[made.precision], made.accuracy
                return f"{made.precision} falls from {was:.2%} to {is_:.2%} on the held-out pictures, limit {limit:g}"
    return None


def go_back(room: Room, version: int) -> int:
    """Make an older version the current one, as a round of its own; nothing of what came between is forgotten.

    Returns:
        The number of that round, and of the version it makes.

    Raises:
        KeyError: there is no such version.
        IllegalMove: a round is running: abort it first.
    """
    with room.store.transaction() as session:
        last, old = newest_round(session), session.get(Model, version)
        if old is None:
            raise KeyError(version)
        if last is not None and last.state not in planning.FINISHED:
            raise IllegalMove(f"round {last.number} is {last.state}: abort it, or wait for it")
        number, now = (last.number if last else 0) + 1, room.clock()
        row = Round(number=number, state=RoundState.ROLLED_BACK, base_version=version, opened_at=now, closed_at=now)
        row.candidate, row.note = old.digest, f"back to version {version}, by an operator"
        session.add(row)
        session.add(Model(version=number, digest=old.digest, made_at=now, precisions=old.precisions))
        session.flush()
        exports.register(session, number, exports.kept_of(session, version))
        for device in devices.members(session):
            exports.offer_model(session, room, device)
        _announce_state(session, room, row)
    room.on_transition(number, RoundState.ROLLED_BACK)
    return number


def _in_use(choices: assignment.Choices, candidate: GlobalModel) -> list[str]:
    """The precisions that members will run once the candidate is the model, as far as it has them."""
    chosen = {str(choice.option.precision) for choice in choices.values() if not isinstance(choice, str)}
    return sorted(chosen & candidate.profiles.keys())


def _announce(room: Room, current: Round) -> bool:
    """COMMITTED → ANNOUNCED once every model offer is with the broker."""
    with room.store.reading() as session:
        if outbox.waiting(session, current.number):
            return False
    with _move(room, current.number, RoundState.ANNOUNCED):
        return True


_STEPS: Final[Mapping[RoundState, Callable[[Room, Round], bool]]] = MappingProxyType(
    {
        RoundState.PLANNED: _offer,
        RoundState.OFFERED: _collect,
        RoundState.COLLECTING: _close,
        RoundState.EXTENDED: _close,
        RoundState.STARVED: _offer_rest,
        RoundState.MERGING: _merge,
        RoundState.VALIDATING: _validate,
        RoundState.COMMITTED: _announce,
    }
)
"""What moves a round on from each state; a finished one, or none, is followed by the next."""
