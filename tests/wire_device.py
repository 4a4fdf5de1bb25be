"""A device on the wire: joins over HTTP, speaks MQTT, uploads random deltas in chunks. No trainer, all else real."""

import threading
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import numpy as np
from fleet import delta_tensors
from mqtt_client import MqttClient, eventually

from aggregator.broker import BrokerUrl
from protocol.chunks import chunk_at, from_bitmap
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
    State,
    Status,
    Telemetry,
)
from protocol.precision import parse_several
from protocol.signing import SigningKey, VerifyKey
from protocol.topics import Topics

CHUNK_BYTES = 4096
SAMPLES = 50


@dataclass
class WireDevice:
    """One device; `serve` handles what has arrived since the last call."""

    name: str
    http: httpx.Client
    topics: Topics
    boot: int = 1
    accepted: list[Receipt] = field(default_factory=list)
    models: list[ModelOffer] = field(default_factory=list)
    pieces: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    """Of broadcasts, by digest and number."""
    chunks_sent: int = 0
    hold_back: threading.Event = field(default_factory=threading.Event)
    """While set, only the first chunk of an upload is sent."""

    def __post_init__(self) -> None:
        self.key = SigningKey(sha256(self.name.encode()).digest())
        self._sequence, self._taken = 0, 0
        self._uploads: dict[str, tuple[Manifest, bytes]] = {}

    def join(self, token: str) -> dict[str, str]:
        body = {"device": self.name, "public_key": self.key.public.raw.hex(), "token": token}
        answer = self.http.post("/api/v1/join", json=body)
        assert answer.status_code == 201, answer.text
        welcome: dict[str, str] = answer.json()
        self.server_key, self.url = VerifyKey(bytes.fromhex(welcome["server_key"])), BrokerUrl.parse(welcome["broker"])
        return welcome

    def connect(self) -> None:
        will = self._sealed(self.topics.device(self.name, "state"), State(Status.OFFLINE, self.boot))
        self.mqtt = MqttClient(self.url, self.name, clean=False, will=(self.topics.device(self.name, "state"), will))
        self.mqtt.__enter__()
        self._taken = 0
        self.mqtt.subscribe(*self.topics.subscriptions_of_device(self.name), f"{self.topics.root}/model/#")
        self.say(self.topics.device(self.name, "birth"), self._birth(), retain=True)
        self.say(self.topics.device(self.name, "state"), State(Status.ONLINE, self.boot), retain=True)

    def close(self) -> None:
        self.mqtt.__exit__(None, None, None)

    def say(self, topic: str, message: Message, *, retain: bool = False, qos: int = 1) -> None:
        self.mqtt.publish(topic, self._sealed(topic, message), retain=retain, qos=qos)

    def report(self, lifecycle: str, progress: float) -> None:
        telemetry = Telemetry(lifecycle, "t", progress, 1, 2, 0, 0.0)
        self.say(self.topics.device(self.name, "tele"), telemetry, qos=0)

    def serve(self) -> None:
        """Answer what has arrived."""
        while self._taken < len(self.mqtt.received):
            arrived = self.mqtt.received[self._taken]
            self._taken += 1
            if (piece := self.topics.parse_model(arrived.topic)) is not None:
                assert piece not in self.pieces, "published once"
                self.pieces[piece] = bytes(arrived.payload)
                continue
            match self._open(arrived.topic, bytes(arrived.payload)):
                case Offer() as offer:
                    self._upload(offer)
                case Need() as need:
                    self._fill(need)
                case Receipt() as receipt:
                    self._uploads.pop(receipt.task, None)
                    self.accepted.append(receipt)
                case ModelOffer() as model:
                    self.models.append(model)

    def serve_until(self, condition: Any, what: str) -> None:
        def step() -> Any:
            self.serve()
            return condition()

        eventually(step, what, within_s=60)

    def resend(self) -> None:
        """Repeat the manifests that nobody has answered for good."""
        for manifest, _ in list(self._uploads.values()):
            self.say(self.topics.manifest("0", self.name, manifest.task), manifest)

    def _upload(self, offer: Offer) -> None:
        if offer.task in self._uploads:
            self.resend()
            return
        base = self.http.get(f"/api/v1/blobs/{offer.base.hex()}").content
        assert sha256(base).digest() == offer.base
        content = Content.DELTA if offer.epochs else Content.PROFILES
        header = Header(offer.architecture, offer.recipe, offer.precision, content, SAMPLES)
        tensors = delta_tensors(*parse_several(offer.precision), seed=offer.seed)
        payload = encode(header, tensors, np.random.default_rng(offer.seed))
        manifest = Manifest(
            offer.task,
            offer.nonce,
            offer.round,
            offer.base,
            sha256(payload).digest(),
            len(payload),
            CHUNK_BYTES,
            SAMPLES,
            1.0,
            0.5,
            1.0,
            2.0,
            EnergySource.MODELLED,
        )
        self._uploads[offer.task] = manifest, payload
        self.resend()

    def _fill(self, need: Need) -> None:
        _, payload = self._uploads[need.task]
        count = -(-len(payload) // CHUNK_BYTES)
        for number in from_bitmap(need.missing, count):
            if not (self.hold_back.is_set() and number):
                topic = self.topics.chunk("0", self.name, need.task, number)
                self.mqtt.publish(topic, chunk_at(payload, CHUNK_BYTES, number))
                self.chunks_sent += 1

    def _open(self, topic: str, data: bytes) -> Message:
        return open_envelope(data, topic=topic, key_of=lambda _: self.server_key).message

    def _sealed(self, topic: str, message: Message) -> bytes:
        self._sequence += 1
        stamp = Stamp(self.boot, self._sequence)
        return seal(message, topic=topic, sender=self.name, stamp=stamp, time_ms=0, key=self.key)

    def _birth(self) -> Birth:
        return Birth(
            session=self.boot,
            version="0.1.0",
            processor="test",
            cores=1,
            memory_bytes=1 << 30,
            trains=True,
            codecs=STAGES,
            precisions=("fp32", "W8A8", "W4A8", "W2A8", "W1A8"),
            meters=(),
            samples=SAMPLES,
            budget_j_per_day=0.0,
            inferences_per_day=1000,
            model_digest=b"",
            costs=(),
            packet_bytes=1 << 18,
        )
