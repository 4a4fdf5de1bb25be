"""Where the fleet's joules went: an entry for each round, device, purpose and source, and sums of nothing else.

Training, inference and idling are told by the device with its update. Communication follows from bytes that really
travelled, by the model of the air (`protocol.channel`): an update goes up alone; what the device fetched over HTTP came
down alone; what was broadcast came down once, and each device of the round bears an equal part. Measured and modelled
energy of one purpose are two entries.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator.planning import OPEN_TASKS, offer_of, tasks_of
from aggregator.room import Room
from aggregator.store import Energy, Task
from protocol.channel import Channel
from protocol.errors import Malformed
from protocol.messages import EnergySource, Manifest, Purpose

CHANNEL = Channel()
AIR = frozenset({Purpose.UP, Purpose.DOWN})
TOLD_BY_DEVICES = frozenset(Purpose) - AIR


def check(manifest: Manifest) -> None:
    """Refuse a manifest whose books cannot be.

    Raises:
        Malformed: a purpose comes twice, or is not the device's to tell.
    """
    purposes = [spent.purpose for spent in manifest.spent]
    strangers = set(purposes) - TOLD_BY_DEVICES
    if strangers or len(set(purposes)) < len(purposes):
        told = ", ".join(purposes)
        raise Malformed(f"manifest tells what was spent on {told}: expected {', '.join(sorted(TOLD_BY_DEVICES))}, once")


def book_update(session: Session, room: Room, task: Task, manifest: Manifest) -> None:
    """Book a judged update, accepted or not: it was trained and sent."""
    distance_km, modelled = room.job.distance_km, EnergySource.MODELLED
    books = _Books.of(session, task.round, task.device)
    books.add(task, Purpose.UP, CHANNEL.up_mj(manifest.payload_bytes, distance_km), modelled)
    books.add(task, Purpose.DOWN, CHANNEL.down_mj(manifest.fetched_bytes, [distance_km]), modelled)
    books.add(task, Purpose.TRAINING, manifest.energy_mj, manifest.energy_source)
    for spent in manifest.spent:
        books.add(task, spent.purpose, spent.energy_mj, spent.source)


def book_broadcast(session: Session, room: Room, number: int) -> None:
    """Book what goes out to all open tasks of a round at once, in equal parts."""
    sharing: dict[bytes, list[tuple[Task, int]]] = {}
    for task in tasks_of(session, number):
        offer = offer_of(task)
        if task.state in OPEN_TASKS and offer.broadcast:
            sharing.setdefault(offer.newest.digest, []).append((task, offer.newest.payload_bytes))
    books = _Books.of(session, number)
    for tasks in sharing.values():
        whole_mj = CHANNEL.down_mj(tasks[0][1], [room.job.distance_km])
        for task, _ in tasks:
            books.add(task, Purpose.DOWN, whole_mj / len(tasks), EnergySource.MODELLED)


@dataclass(frozen=True, slots=True)
class _Books:
    """Entries of one round, all or one device's, read at once; what is added to none makes one."""

    session: Session
    entries: dict[tuple[str, str, str], Energy]

    @classmethod
    def of(cls, session: Session, number: int, device: str | None = None) -> "_Books":
        rows = select(Energy).where(Energy.round == number)
        if device is not None:
            rows = rows.where(Energy.device == device)
        return cls(session, {(entry.device, entry.purpose, entry.source): entry for entry in session.scalars(rows)})

    def add(self, task: Task, purpose: Purpose, energy_mj: float, source: EnergySource) -> None:
        """Add to an entry; nothing makes none."""
        if not energy_mj:
            return
        key = (task.device, purpose.value, source.value)
        if key not in self.entries:
            self.entries[key] = Energy(round=task.round, device=key[0], purpose=key[1], source=key[2], energy_mj=0.0)
            self.session.add(self.entries[key])
        self.entries[key].energy_mj += energy_mj
