"""The one thread that writes: it takes what came in, sends what is due, and moves the round.

Every change of the database happens here, in the order of one queue, so that no two can meet. HTTP threads hand in
functions with `submit` and wait for the result.

Messages that arrive together are one transaction: only when it is on disk do receipts go out, and they wait for the
disk once instead of a hundred times. If one of them fails, all are undone and handled one by one.
"""

import errno
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from queue import Queue
from typing import Any, Final, TypeVar

from sqlalchemy.exc import OperationalError

from aggregator import handlers, outbox, planning, rounds, versions
from aggregator.link import Connection, Link, PacketTooLarge, Received, Sent
from aggregator.room import Room
from protocol.messages import RoundState

T = TypeVar("T")

TICK_S: Final = 0.2
"""How long it waits for something to arrive."""
LOOK_S: Final = 1.0
"""How often deadlines are looked at when nothing arrives: they are seconds, and a look costs some milliseconds."""
BATCH: Final = 128
"""Events handled before the outbox and the round get their turn: what a disk does at once, and less than a second."""
PATIENCE_S: Final = 30.0
"""How long a command waits for its turn: an export of a full ResNet18 takes about ten seconds."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
STOPPING: Final = "the aggregator is stopping"

log = logging.getLogger("bitfleet.aggregator")


class Busy(Exception):
    """A command did not get its turn in time, and will not be done later either."""


@dataclass(frozen=True, slots=True)
class _Command:
    run: Callable[[], Any]
    result: Future[Any]


@dataclass(slots=True)
class _Patience:
    """How long a job that failed is left alone; the others go on."""

    pause_s: float = 0.0
    until: float = 0.0

    def fail(self) -> None:
        """Wait twice as long as the last time."""
        self.pause_s = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self.until = time.monotonic() + self.pause_s


class Coordinator:
    """Owns the rooms of a fleet while `run` runs.

    Args:
        room: any of them.
        link: the connection, which puts its events into `inbox`.
        inbox: what is to be done, in order.
        on_connected: called whenever the broker is there again, which may have forgotten what it kept.
    """

    def __init__(
        self, room: Room, link: Link, inbox: Queue[Any], on_connected: Callable[[], object] = lambda: None
    ) -> None:
        self._room, self._link, self._inbox, self._on_connected = room, link, inbox, on_connected
        self._store = room.store.of(None)
        self._stopping = threading.Event()
        self._look_at_s = 0.0
        self._handed = 0
        """The newest outbox row that the link has."""
        self._acknowledged = set[int]()
        """Rows that the broker has and the outbox still holds."""
        self._patience = {name: _Patience() for name in room.rooms}
        self._looked_at = time.monotonic()

    @property
    def waiting(self) -> int:
        """Events that have not had their turn."""
        return self._inbox.qsize()

    @property
    def lag_s(self) -> float:
        """Seconds since the queue was looked at last: a tick while all is well, the length of an export during one."""
        return time.monotonic() - self._looked_at

    def run(self) -> None:
        """Work until `stop`."""
        while not self._stopping.is_set():
            taken = self._take()
            for said_by_broker, events in groupby(taken, _is_said_by_broker):
                if said_by_broker:
                    self._handle_together(list(events))
                else:
                    for event in events:
                        self._handle(event)
            if taken or time.monotonic() >= self._look_at_s:
                self._look_at_s = time.monotonic() + LOOK_S
                self._move_all()
        self._drain()

    def stop(self) -> None:
        """End `run` soon; from any thread or signal handler."""
        self._stopping.set()

    def submit(self, run: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        """Have `run` called by the coordinator and return what it returns or raise what it raises.

        Raises:
            Busy: it did not get its turn within `patience_s`.
        """
        if self._stopping.is_set():
            raise Busy(STOPPING)
        result: Future[T] = Future()
        self._inbox.put(_Command(run, result))
        try:
            return result.result(patience_s)
        except TimeoutError as error:
            if result.cancel():
                raise Busy(f"the aggregator did not get to it within {patience_s:g} s; try again") from error
            raise

    def _move_all(self) -> None:
        """What is due in every job."""
        self._guarded("what is to be sent", self._flush)
        for room in self._room.rooms.values():
            if time.monotonic() >= self._patience[room.name].until:
                self._move(room)

    def _take(self) -> list[Any]:
        """What has arrived, waiting a tick for the first."""
        events: list[Any] = []
        self._looked_at = time.monotonic()
        try:
            events.append(self._inbox.get(timeout=TICK_S))
            while len(events) < BATCH:
                events.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return events

    def _handle_together(self, events: Sequence[Received | Sent]) -> None:
        """Messages and acknowledgements in one transaction, or, if one of them fails, in one each."""
        messages = [event for event in events if isinstance(event, Received)]
        settled = [self._link.settle(event) for event in events if isinstance(event, Sent)]
        self._acknowledged.update(row for row in settled if row is not None)
        if not self._done_at_once(messages):
            for message in messages:
                self._guarded(f"message on {message.topic}", partial(self._receive, message))
            self._guarded("acknowledged messages", self._forget_acknowledged)
        for _ in messages:
            self._link.handled()

    def _done_at_once(self, messages: Sequence[Received]) -> bool:
        """Whether it was; if not, all of it is undone, and what failed is told when it fails alone."""
        try:
            with self._store.together() as session:
                held = handlers.foresee(session, self._room, [message.topic for message in messages])
                for message in messages:
                    self._receive(message)
                self._forget_acknowledged()
                del held
        except Exception:  # noqa: BLE001
            return False
        self._acknowledged.clear()
        return True

    def _receive(self, message: Received) -> None:
        handlers.on_message(self._room, message.topic, message.data)

    def _forget_acknowledged(self) -> None:
        """If it fails the rows stay, for the next time, or are sent again after a restart: messages are idempotent."""
        if self._acknowledged:
            with self._store.transaction() as session:
                outbox.done(session, *self._acknowledged)

    def _handle(self, event: Connection | _Command) -> None:
        match event:
            case Connection(up, detail):
                log.log(logging.INFO if up else logging.WARNING, "%s", detail)
                if up:
                    for room in self._room.rooms.values():
                        self._guarded("the state of the round", partial(_repeat_round, room))
                    self._on_connected()
            case _Command(run, result):
                if result.set_running_or_notify_cancel():
                    _fulfil(result, run)

    def _move(self, room: Room) -> None:
        """Move a job's round as far as it goes, and send what is due; after an error, not before a pause."""
        patience = self._patience[room.name]
        try:
            while not self._stopping.is_set() and rounds.advance(room):
                self._flush()
        except Exception as error:  # noqa: BLE001 (the next try may find more space, or a repaired file)
            patience.fail()
            self._report(f"job {room.name}: the round is held up for {patience.pause_s:.0f} s", error)
        else:
            patience.pause_s = 0.0

    def _flush(self) -> None:
        if not self._link.connected:
            return
        with self._store.reading() as session:
            rows = outbox.pending(session, self._handed)
        for row in rows:
            self._handed = row.id
            try:
                self._link.publish(row)
            except PacketTooLarge as error:
                log.error("%s; dropped", error)  # noqa: TRY400 (the sentence says it all)
                with self._store.transaction() as session:
                    outbox.done(session, row.id)

    def _guarded(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 (one bad message must not stop the fleet)
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        folder = self._room.store.path.parent
        if is_disk_full(error):
            log.error("%s: the disk of %s is full; make room, nothing accepted is lost", what, folder)
        else:
            log.error("%s: %s", what, error, exc_info=error)

    def _drain(self) -> None:
        """Nobody will get to what is left: say so to those who wait."""
        for event in iter(self._take, []):
            for item in event:
                if isinstance(item, _Command) and item.result.set_running_or_notify_cancel():
                    item.result.set_exception(Busy(STOPPING))


def _is_said_by_broker(event: Any) -> bool:
    return isinstance(event, Received | Sent)


def _repeat_round(room: Room) -> None:
    """The retained state again: the embedded broker forgets it with its process."""
    with room.store.transaction() as session:
        current = planning.newest_round(session)
        if current is not None:
            version = versions.current(session).version
            state = RoundState(current.number, current.state.value, version, room.on_wire)
            outbox.post(session, room.topics.round_state(room.on_wire), state, retain=True)


def _fulfil(result: Future[Any], run: Callable[[], Any]) -> None:
    try:
        result.set_result(run())
    except Exception as error:  # noqa: BLE001 (whoever waits for it gets it)
        result.set_exception(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether an operating system's or a database's error means that there is no space left."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return isinstance(error, OperationalError) and "full" in str(error.orig)
