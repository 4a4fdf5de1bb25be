"""One virtual device, without sockets or clock: messages in, messages out (as `protocol`, values to values).

It does what `edge` does on the wire: a new session on every connect, a manifest until there is a receipt, the chunks
that are asked for, a birth with the new model's digest. What it sends depends on the offer alone, so that two runs
with the same job send the same updates. It keeps its outbox through every absence, as a device's disk would.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

import numpy as np

from protocol import networks
from protocol.architecture import Role, Tensors
from protocol.chunks import DEFAULT_CHUNK_BYTES, chunk_at, chunk_count, from_bitmap
from protocol.codec.payload import Content, Header, encode
from protocol.codec.recipe import STAGES
from protocol.envelope import Stamp, open_envelope, seal
from protocol.messages import (
    Birth,
    EnergySource,
    Manifest,
    Message,
    ModelOffer,
    Need,
    Offer,
    Receipt,
    ServerState,
    State,
    Status,
)
from protocol.precision import parse_several
from protocol.signing import SigningKey, VerifyKey
from protocol.topics import Topics
from virtual.ledger import Ledger

PRECISIONS: Final = ("fp32", "W8A8", "W4A8", "W2A8", "W1A8")
REPEAT_AFTER_S: Final = 2.0
"""Before the first repetition of a manifest; then twice as long each time."""
LONGEST_REPEAT_S: Final = 60.0
DELTA: Final = 0.01
"""Standard deviation of an update's values, about that of a trained network's."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be published at QoS 1."""

    topic: str
    data: bytes
    retain: bool = False


@dataclass(slots=True)
class Entry:
    """An update without a receipt."""

    manifest: Manifest
    payload: bytes
    shard: str
    due_s: float
    pause_s: float = REPEAT_AFTER_S


@dataclass
class VirtualAgent:
    """A device.

    Args:
        name: of the device.
        index: among all; it has 50 pictures and as many more.
        topics: of its fleet.
        ledger: told of every offer, update and receipt.
    """

    name: str
    index: int
    topics: Topics
    ledger: Ledger
    server_key: VerifyKey | None = None
    session: int = 0
    sequence: int = 0
    model_digest: bytes = b""
    outbox: dict[str, Entry] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    """Tasks with a receipt."""
    working: dict[str, Offer] = field(default_factory=dict)
    """Offers whose base is on its way."""

    def __post_init__(self) -> None:
        self.key = SigningKey(sha256(self.name.encode()).digest())
        self._receipts = f"{self.topics.root}/d/{self.name}/rx/"
        self._offers = self.topics.device(self.name, "offer")

    @property
    def samples(self) -> int:
        """How many pictures it says it has."""
        return 50 + self.index

    # --- coming and going ---

    def will(self) -> Outgoing:
        """What the broker says for it when it vanishes; for the session that begins now."""
        self.session += 1
        return self._say("state", State(Status.OFFLINE, self.session))

    def introduce(self) -> Iterator[Outgoing]:
        """What it says on every connect; whatever lies in the outbox is due at once."""
        yield self._say("birth", self._birth())
        yield self._say("state", State(Status.ONLINE, self.session))
        self.hurry()

    def hurry(self) -> None:
        """Begin anew to ask for receipts."""
        for entry in self.outbox.values():
            entry.due_s, entry.pause_s = 0.0, REPEAT_AFTER_S

    # --- talking ---

    def on_message(self, topic: str, data: bytes, now_s: float) -> Iterator[Outgoing]:
        """Answer a message."""
        if topic == self.topics.round_state():
            return  # for people; nothing follows from it
        yield from self.on_opened(self._open(topic, data), now_s)

    def on_opened(self, message: Message, now_s: float) -> Iterator[Outgoing]:
        """Answer a message that was checked."""
        match message:
            case ServerState(online=True):
                self.hurry()
            case Offer() as offer if offer.task in self.done:
                pass
            case Offer() as offer if offer.task in self.outbox:
                self.outbox[offer.task].due_s = now_s
            case Offer() as offer:
                self.ledger.offered(self.name, offer)
                self.working = {offer.task: offer}
            case Need() as need if need.task in self.outbox:
                yield from self._chunks(need, now_s)
            case Receipt() as receipt if receipt.task in self.outbox:
                if receipt.digest == self.outbox[receipt.task].manifest.digest:
                    del self.outbox[receipt.task]
                    self.done.add(receipt.task)
                    self.ledger.receipted(self.name, receipt)
            case ModelOffer() as model if model.digest != self.model_digest:
                self.model_digest = model.digest
                yield self._say("birth", self._birth())
                yield self._say("state", State(Status.ONLINE, self.session))
            case _:
                pass

    def train(self, offer: Offer) -> None:
        """Put the update that an offer asks for into the outbox."""
        del self.working[offer.task]
        payload = update_for(offer, self.samples)
        manifest = Manifest(
            task=offer.task,
            nonce=offer.nonce,
            round=offer.round,
            base=offer.base,
            digest=sha256(payload).digest(),
            payload_bytes=len(payload),
            chunk_bytes=DEFAULT_CHUNK_BYTES,
            samples=self.samples,
            loss=1.0,
            accuracy=0.5,
            train_s=1.0,
            energy_mj=2.0,
            energy_source=EnergySource.MODELLED,
        )
        self.outbox[offer.task] = Entry(manifest, payload, offer.shard, due_s=0.0)

    def due(self, now_s: float) -> Iterator[Outgoing]:
        """Manifests that it is time for."""
        for task, entry in self.outbox.items():
            if now_s >= entry.due_s:
                entry.due_s, entry.pause_s = now_s + entry.pause_s, min(2 * entry.pause_s, LONGEST_REPEAT_S)
                self.ledger.sent(self.name, entry.manifest)
                topic = self.topics.manifest(entry.shard, self.name, task)
                yield Outgoing(topic, self._sealed(topic, entry.manifest))

    def _chunks(self, need: Need, now_s: float) -> Iterator[Outgoing]:
        entry = self.outbox[need.task]
        entry.due_s, entry.pause_s = now_s + 2 * REPEAT_AFTER_S, 2 * REPEAT_AFTER_S
        size = entry.manifest.chunk_bytes
        for number in from_bitmap(need.missing, chunk_count(len(entry.payload), size)):
            topic = self.topics.chunk(entry.shard, self.name, need.task, number)
            yield Outgoing(topic, chunk_at(entry.payload, size, number))

    def _say(self, leaf: str, message: Message) -> Outgoing:
        topic = self.topics.device(self.name, leaf)
        return Outgoing(topic, self._sealed(topic, message), retain=True)

    def _sealed(self, topic: str, message: Message) -> bytes:
        self.sequence += 1
        return seal(message, topic=topic, sender=self.name, stamp=Stamp(1, self.sequence), time_ms=0, key=self.key)

    def _open(self, topic: str, data: bytes) -> Message:
        return open_envelope(data, topic=topic, key_of=lambda _: self.server_key).message

    def _birth(self) -> Birth:
        return replace(BIRTH, session=self.session, samples=self.samples, model_digest=self.model_digest)


BIRTH: Final = Birth(
    session=0,
    version="0.1.0",
    processor="virtual",
    cores=4,
    memory_bytes=1 << 30,
    trains=True,
    codecs=STAGES,
    precisions=PRECISIONS,
    meters=(),
    samples=1,
    budget_j_per_day=0.0,
    inferences_per_day=1000,
    model_digest=b"",
    costs=(),
    packet_bytes=1 << 18,
)


def update_for(offer: Offer, samples: int) -> bytes:
    """The update that a virtual device sends for an offer: a function of the offer's seed and recipe."""
    content = Content.DELTA if offer.epochs else Content.PROFILES
    header = Header(offer.architecture, offer.recipe, offer.precision, content, samples, offer.codec_seed)
    rng = np.random.default_rng(offer.seed)
    return encode(header, _tensors(offer, rng), rng, offer.codec_steps)


def _tensors(offer: Offer, rng: np.random.Generator) -> Tensors:
    """Small random deltas, and moments of a plausible size."""
    specs = networks.parse(offer.architecture).tensors(*parse_several(offer.precision))
    values_N = rng.standard_normal(sum(spec.size for spec in specs), dtype=np.float32) * np.float32(DELTA)
    tensors: Tensors = {}
    start = 0
    for spec in specs:
        part = values_N[start : start + spec.size].reshape(spec.shape)
        tensors[spec.name] = 1 + np.abs(part) if spec.role is Role.VARIANCE else part
        start += spec.size
    return tensors
