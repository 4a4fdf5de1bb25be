"""A whole fleet in one process: the real room on a real disk, and devices written by hand that sign and upload.

Nothing is faked but the broker between them (`Fleet.deliver` carries the outbox's rows to the devices they are for)
and the clocks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from strategies import SMALL

from aggregator import handlers, joining, outbox, placing, rounds, versions
from aggregator.blobs import Blobs
from aggregator.job import Job
from aggregator.model import GlobalModel
from aggregator.room import Room
from aggregator.state_dir import BLOBS, DATABASE
from aggregator.store import MAIN, Device, RefusalCount, Round, Store, Task, Update
from protocol.architecture import Role, Tensors
from protocol.chunks import chunk_at, chunk_count, from_bitmap
from protocol.codec.payload import Content, Header, decode, encode
from protocol.codec.recipe import STAGES
from protocol.envelope import Stamp, seal
from protocol.messages import (
    Birth,
    Decline,
    DeclineReason,
    EnergySource,
    Manifest,
    Message,
    Need,
    Offer,
    Receipt,
    State,
    Status,
)
from protocol.precision import Precision, parse_several
from protocol.signing import SigningKey
from protocol.topics import Topics

JOB = Job(architecture=SMALL.spec, rounds=1, deadline_s=100.0, extension_s=20.0, min_devices=1, recipe="sign")
TOPICS = Topics("test")
SERVER_KEY = SigningKey(bytes(range(32)))
STRAIGHT = ["planned", "offered", "collecting", "merging", "validating", "committed", "announced"]
"""The states of a round in which everyone delivers."""


@dataclass
class Clock:
    """A wall clock that tests may set, and a monotonic one that only passes."""

    wall_s: float = 1.8e9
    steady_s: float = 50.0

    def wall(self) -> float:
        return self.wall_s

    def steady(self) -> float:
        return self.steady_s

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


@dataclass
class Handset:
    """A device: keeps its key and counters, does what it is told when a test says so."""

    name: str
    fleet: "Fleet"
    samples: int = 100
    precisions: tuple[str, ...] = ("fp32", "W8A8", "W4A8", "W2A8", "W1A8")
    birth: dict[str, Any] = field(default_factory=dict)
    inbox: list[Message] = field(default_factory=list)
    session: int = 0
    stamp: Stamp = field(default_factory=lambda: Stamp(1, 0))

    @property
    def key(self) -> SigningKey:
        return SigningKey(sha256(self.name.encode()).digest())

    def send(self, topic: str, message: Message, *, sender: str = "", key: SigningKey | None = None) -> bytes:
        """Seal and deliver a message; returns the bytes, for replays."""
        self.stamp = replace(self.stamp, sequence=self.stamp.sequence + 1)
        data = seal(message, topic=topic, sender=sender or self.name, stamp=self.stamp, time_ms=0, key=key or self.key)
        handlers.on_message(self.fleet.room, topic, data)
        return data

    def connect(self) -> None:
        """A new session: birth and state, as on every connect."""
        self.session += 1
        self.say_birth()
        self.say_state(Status.ONLINE)

    def say_birth(self, **changes: Any) -> None:
        self.birth |= changes
        standard = Birth(
            session=self.session,
            version="0.1.0",
            processor="test",
            cores=1,
            memory_bytes=1 << 30,
            trains=True,
            codecs=STAGES,
            precisions=self.precisions,
            meters=(),
            samples=self.samples,
            budget_j_per_day=0.0,
            inferences_per_day=1000,
            model_digest=b"",
            costs=(),
            packet_bytes=1 << 20,
        )
        self.send(TOPICS.device(self.name, "birth"), replace(standard, **self.birth))

    def say_state(self, status: Status, session: int | None = None) -> None:
        self.send(TOPICS.device(self.name, "state"), State(status, self.session if session is None else session))

    def take(self, kind: type[Any]) -> list[Any]:
        """Every message of a kind that has arrived, removed from the inbox."""
        found = [message for message in self.inbox if isinstance(message, kind)]
        self.inbox = [message for message in self.inbox if not isinstance(message, kind)]
        return found

    def offer(self) -> Offer:
        """The newest offer."""
        offers = self.take(Offer)
        assert offers, f"{self.name} has no offer"
        newest: Offer = offers[-1]
        return newest

    def receipt(self) -> Receipt:
        """The newest receipt, after delivery."""
        self.fleet.deliver()
        receipts = self.take(Receipt)
        assert receipts, f"{self.name} has no receipt"
        newest: Receipt = receipts[-1]
        return newest

    def train(self, offer: Offer, spoil: Callable[[Tensors], object] = len, **header: Any) -> bytes:
        """An update that depends on the offer alone: small random deltas, moments of some pictures."""
        base = decode(self.fleet.room.blobs.get(offer.base.hex()))
        assert base.header.content is Content.WEIGHTS
        content = Content.DELTA if offer.epochs else Content.PROFILES
        fields = Header(offer.architecture, offer.recipe, offer.precision, content, self.samples, offer.codec_seed)
        tensors = delta_tensors(*parse_several(offer.precision), seed=offer.seed)
        spoil(tensors)
        return encode(replace(fields, **header), tensors, np.random.default_rng(offer.seed))

    def manifest(self, offer: Offer, payload: bytes, **changes: Any) -> Manifest:
        standard = Manifest(
            task=offer.task,
            nonce=offer.nonce,
            round=offer.round,
            base=offer.base,
            digest=sha256(payload).digest(),
            payload_bytes=len(payload),
            chunk_bytes=1024,
            samples=self.samples,
            loss=1.0,
            accuracy=0.5,
            train_s=1.0,
            energy_mj=2.0,
            energy_source=EnergySource.MODELLED,
        )
        return replace(standard, **changes)

    def announce(self, manifest: Manifest) -> bytes:
        return self.send(TOPICS.manifest("0", self.name, manifest.task), manifest)

    def send_chunk(self, task: str, payload: bytes, number: int, chunk_bytes: int = 1024) -> None:
        topic = TOPICS.chunk("0", self.name, task, number)
        handlers.on_message(self.fleet.room, topic, chunk_at(payload, chunk_bytes, number))

    def upload(self, offer: Offer, payload: bytes, **changes: Any) -> None:
        """Manifest and every chunk."""
        manifest = self.manifest(offer, payload, **changes)
        self.announce(manifest)
        for number in range(chunk_count(len(payload), manifest.chunk_bytes)):
            self.send_chunk(offer.task, payload, number, manifest.chunk_bytes)

    def deliver_update(self) -> Receipt:
        """Take the offer, train, upload, and return the receipt."""
        offer = self.offer()
        self.upload(offer, self.train(offer))
        return self.receipt()

    def decline(self, offer: Offer, retry_after_s: float = 0.0) -> None:
        message = Decline(offer.task, DeclineReason.BUSY, "busy", retry_after_s)
        self.send(TOPICS.response(self.name, offer.task), message)

    def missing(self, payload: bytes) -> list[int]:
        """The chunks the newest Need asks for."""
        self.fleet.deliver()
        return list(from_bitmap(self.take(Need)[-1].missing, chunk_count(len(payload), 1024)))


def delta_tensors(*precisions: Precision, seed: int) -> Tensors:
    """Deltas of about 0.01, moments of a plausible size."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for spec in SMALL.tensors(*precisions):
        values = rng.normal(scale=0.01, size=spec.shape)
        if spec.role is Role.VARIANCE:
            values = 1.0 + np.abs(values)
        tensors[spec.name] = values.astype(np.float32)
    return tensors


class Fleet:
    """A room in a folder as an aggregator keeps it, its devices and what happened."""

    def __init__(
        self, folder: Path, job: Job = JOB, jobs: Mapping[str, Job] | None = None, **surroundings: Any
    ) -> None:
        self.folder, self.job, self.surroundings = folder, job, surroundings
        self.jobs = {MAIN: job, **(jobs or {})}
        self.clock = Clock()
        self.handsets: dict[str, Handset] = {}
        self.transitions: list[tuple[int, str]] = []
        self.room = self._open()

    def _open(self) -> Room:
        store, blobs, rooms = Store(self.folder / DATABASE), Blobs(self.folder / BLOBS), dict[str, Room]()
        for name, job in self.jobs.items():
            room = Room(
                store=store,
                blobs=blobs,
                topics=TOPICS,
                job=job,
                server_key=SERVER_KEY.public,
                clock=self.clock.wall,
                monotonic=self.clock.steady,
                on_transition=lambda number, state: self.transitions.append((number, state.value)),
                name=name,
                rooms=rooms,
                **self.surroundings,
            )
            versions.prepare(room)
        placing.place_all(rooms[MAIN])
        return rooms[MAIN]

    def restart(self) -> None:
        """The aggregator dies and comes back: only what is on disk is left, and the monotonic clock starts anew."""
        self.room.store.close()
        self.clock.steady_s = 1.0
        self.room = self._open()

    def join(self, *names: str, **handset: Any) -> list[Handset]:
        """New devices that join with a token, but do not connect yet."""
        token = joining.create_token(self.room, uses=len(names), ttl_s=60.0)
        for name in names:
            device = Handset(name, self, **handset)
            joining.join(self.room, device=name, public_key=device.key.public.raw, token=token)
            self.handsets[name] = device
        return [self.handsets[name] for name in names]

    def connected(self, *names: str, **handset: Any) -> list[Handset]:
        """New devices that join and connect."""
        devices = self.join(*names, **handset)
        for device in devices:
            device.connect()
        return devices

    def deliver(self) -> None:
        """Carry every row of the outbox to the device it is for."""
        with self.room.store.of(None).transaction() as session:
            for row in outbox.pending(session):
                _, _, _, place, name, *_ = row.topic.split("/")
                if place == "d" and name in self.handsets:
                    self.handsets[name].inbox.append(outbox.message_of(row))
                outbox.done(session, row.id)

    def run(self) -> None:
        """Advance and deliver until nothing moves."""
        while self.advance():
            self.deliver()
        self.deliver()
        while self.advance():
            self.deliver()

    def advance(self) -> bool:
        """One step of every job; whether one moved."""
        moved = [rounds.advance(room) for room in self.room.rooms.values()]
        return any(moved)

    def until(self, state: str) -> None:
        """Advance and deliver until the current round is in a state."""
        for _ in range(20):
            if self.state() == state:
                return
            rounds.advance(self.room)
            if self.state() != state:
                self.deliver()
        raise AssertionError(f"the round is {self.state()}, and does not become {state}")

    def complete(self) -> None:
        """Let every device with an offer deliver, and the round run to its end."""
        self.run()
        for device in self.handsets.values():
            if any(isinstance(message, Offer) for message in device.inbox):
                device.deliver_update()
        self.run()

    def state(self) -> str:
        """The current round's state."""
        with self.room.store.reading() as session:
            row = session.scalar(select(Round).order_by(Round.number.desc()).limit(1))
            return row.state.value if row else "none"

    def states(self, number: int = 1) -> list[str]:
        """Every state that a round has been in."""
        return [state for round_number, state in self.transitions if round_number == number]

    def rows(self, table: type[Any]) -> list[Any]:
        with self.room.store.reading() as session:
            return list(session.scalars(select(table)))

    def device(self, name: str) -> Device:
        with self.room.store.reading() as session:
            return session.get_one(Device, name)

    def tasks(self) -> dict[str, str]:
        """Task states by device; the newest where a device had several."""
        return {task.device: task.state.value for task in self.rows(Task)}

    def refusals(self) -> dict[tuple[str, str], int]:
        return {(row.device, row.refusal): row.count for row in self.rows(RefusalCount)}

    def accepted(self) -> list[str]:
        return sorted(update.device for update in self.rows(Update) if update.accepted)

    def model(self) -> GlobalModel:
        with self.room.store.reading() as session:
            return versions.load(self.room, versions.current(session))

    def version(self) -> int:
        with self.room.store.reading() as session:
            return versions.current(session).version


Opener = Callable[..., Fleet]
"""The fixture `open_fleet`."""


def trained(fleet: Fleet) -> None:
    """One device takes part, and the only round is over."""
    fleet.connected("a")
    fleet.run()
    fleet.handsets["a"].deliver_update()
    fleet.run()
    assert fleet.state() == "announced"


def collecting(open_fleet: Opener, *names: str, **job: Any) -> tuple[Fleet, list[Handset]]:
    """A fleet whose first round is collecting, and its devices, which have their offers."""
    fleet = open_fleet(replace(JOB, **job))
    devices = fleet.connected(*names)
    fleet.run()
    assert fleet.state() == "collecting"
    return fleet, devices


def offered(fleet: Fleet, *names: str) -> list[tuple[Handset, Offer]]:
    """Devices (by default one, `a`) and the offers of the first round that they took."""
    devices = fleet.connected(*(names or ("a",)))
    fleet.run()
    return [(device, device.offer()) for device in devices]


def refused(device: Handset, code: str) -> Receipt:
    """The newest receipt, which must refuse with `code`, a reason and a count."""
    receipt = device.receipt()
    assert (receipt.outcome, receipt.refusal) == ("refused", code), receipt.reason
    assert receipt.reason
    assert device.fleet.refusals()[device.name, code] >= 1
    return receipt
