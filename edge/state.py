"""What an agent must not forget: one small file, written whole by write, fsync, rename.

Layout: the SHA-256 of the rest in hex, a newline, JSON. A damaged journal is set aside and a fresh one begun. The
device's key and its membership live in files of their own (`join`), written once: no damage here costs them.

Boot and session numbers must rise whatever happens, or the aggregator takes the device for a replay of itself. Where
there is no journal they begin at the clock's seconds since 1970: a device cannot start or connect more than once a
second for long, so the clock is ahead of every number used before.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from edge.files import set_aside, write_atomic
from edge.lifecycle import MEMBER, Lifecycle, check_move
from protocol.envelope import Stamp
from protocol.errors import ProtocolError
from protocol.messages import Cost, Offer
from protocol.replay import Seen
from protocol.schema import from_map, to_map


class JournalError(Exception):
    """The journal cannot be read; the message names file and reason."""


@dataclass(frozen=True, slots=True)
class Task:
    """An offer taken on, and when it arrived by the wall clock, which is only asked again after a restart."""

    offer: Offer
    arrived_at: float

    def left_s(self, now: float) -> float:
        """Seconds until the deadline; the whole of it where the clock jumped back."""
        return self.offer.deadline_s - max(0.0, now - self.arrived_at)


@dataclass(frozen=True, slots=True)
class Record:
    """The journal's content.

    Attributes:
        lifecycle: where the agent stands.
        boot: rises with every start; part of every stamp.
        session: rises with every connect; in will, state and birth.
        task: the offer being worked on, None when there is none or its update is in the outbox.
        seen: the newest stamps of the aggregator by message type: its replay guard.
        server_boot: the newest boot in a `ServerState`: older ones are stale wills.
        costs: latency and energy of each precision run so far.
        architecture: the network of the last offer, empty before the first; says what shape pictures must have.
        precision: its precision, whose broadcasts the device listens to.
        done: the last task that has its receipt: an offer of it that was still on its way is no new work.
        sent_bytes: since the device joined, received_bytes likewise.
        starts: when the last starts were that did not live long, wall-clock seconds.
    """

    lifecycle: Lifecycle = Lifecycle.UNPROVISIONED
    boot: int = 0
    session: int = 0
    task: Task | None = None
    seen: Seen = field(default_factory=dict)
    server_boot: int = 0
    costs: tuple[Cost, ...] = ()
    architecture: str = ""
    precision: str = ""
    done: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    starts: tuple[float, ...] = ()


Listener = Callable[[Lifecycle], None]


class Journal:
    """The record on disk and in memory. One thread moves the lifecycle; every change is durable when it returns.

    Args:
        path: the file.
        record: its content.
        on_state: called after each lifecycle move that is on disk.
    """

    def __init__(self, path: Path, record: Record, on_state: Listener = lambda _: None) -> None:
        self.path, self.record, self._on_state = path, record, on_state
        self._lock = threading.Lock()  # the link counts sessions and stamps from its own thread

    @classmethod
    def open(
        cls, path: Path, *, on_state: Listener = lambda _: None, now: Callable[[], float] = time.time
    ) -> tuple[Self, str]:
        """The journal at `path` for a new start, its boot counted, and a note for people if it had to begin afresh.

        A device that was at work continues in IDLE.
        """
        record, note = _read_or_begin(path, int(now()))
        resumed = Lifecycle.IDLE if record.lifecycle in MEMBER else record.lifecycle
        journal = cls(path, record, on_state)
        journal.change(boot=record.boot + 1, lifecycle=resumed)
        return journal, note

    def change(self, **values: Any) -> None:
        """Replace fields of the record, durably.

        Raises:
            OSError: the disk refused; memory still holds what is on disk.
        """
        with self._lock:
            record = replace(self.record, **values)
            write_atomic(self.path, dump(record))
            self.record = record

    def next_session(self) -> int:
        """Count a connect."""
        self.change(session=self.record.session + 1)
        return self.record.session

    def move(self, new: Lifecycle, **values: Any) -> None:
        """Move to `new`, with other fields in the same write, and tell the listener.

        Raises:
            IllegalMove: the table of moves does not have it.
        """
        check_move(self.record.lifecycle, new)
        self.change(lifecycle=new, **values)
        self._on_state(new)


def _read_or_begin(path: Path, now_s: int) -> tuple[Record, str]:
    fresh = Record(boot=now_s, session=now_s)
    if not path.exists():
        return fresh, ""
    try:
        return load(path.read_bytes()), ""
    except JournalError as error:
        aside = set_aside(path)
        return fresh, f"journal {path}: {error}; kept as {aside.name}, beginning a fresh one"


def dump(record: Record) -> bytes:
    """The bytes of a record."""
    task = record.task
    plain = asdict(record) | {
        "task": None if task is None else {"offer": _message(task.offer), "arrived_at": task.arrived_at},
        "seen": {str(number): [stamp.boot, stamp.sequence] for number, stamp in record.seen.items()},
        "costs": [_message(cost) for cost in record.costs],
    }
    body = json.dumps(plain, sort_keys=True).encode()
    return sha256(body).hexdigest().encode() + b"\n" + body


def load(data: bytes) -> Record:
    """The record in `data`.

    Raises:
        JournalError: cut short or altered, or written by a version that this one does not understand.
    """
    digest, _, body = data.partition(b"\n")
    if sha256(body).hexdigest().encode() != digest:
        raise JournalError(f"{len(data)} bytes whose checksum does not match; expected the file as it was written")
    plain = json.loads(body)
    known = {item.name for item in fields(Record)}
    try:
        return Record(**{name: _revive(name, value) for name, value in plain.items() if name in known})
    except (ProtocolError, KeyError, TypeError, ValueError) as error:
        raise JournalError(f"written by another version: {error}") from error


def _revive(name: str, value: Any) -> Any:
    match name:
        case "lifecycle":
            return Lifecycle(value)
        case "task":
            return None if value is None else Task(from_map(Offer, _from_json(value["offer"])), value["arrived_at"])
        case "seen":
            return {int(number): Stamp(*stamp) for number, stamp in value.items()}
        case "costs":
            return tuple(from_map(Cost, _from_json(cost)) for cost in value)
        case "starts":
            return tuple(value)
    return value


def _message(message: Offer | Cost) -> Any:
    """A message as JSON can hold it: bytes as {"hex": …}, keys as text."""
    return _as_json(to_map(message))


def _as_json(value: Any) -> Any:
    match value:
        case bytes():
            return {"hex": value.hex()}
        case dict():
            return {str(key): _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case _:
            return value


def _from_json(value: Any) -> Any:
    match value:
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case dict():
            return {int(key): _from_json(item) for key, item in value.items()}
        case list():
            return [_from_json(item) for item in value]
        case _:
            return value
