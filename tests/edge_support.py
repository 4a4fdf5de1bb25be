"""What the agent's tests stand on: real HTTP servers and brokers, digits on disk, an aggregator written by hand."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from mqtt_client import MqttClient, eventually
from PIL import Image
from sklearn.datasets import load_digits

from aggregator import ports
from aggregator.broker import BrokerUrl, open_broker
from edge.runtime import ModelSlot
from export.bundle import export_model
from protocol import networks
from protocol.chunks import Assembly
from protocol.codec.payload import Content, Header, Payload, decode, encode
from protocol.envelope import AGGREGATOR, Stamp, open_envelope, seal
from protocol.initial import initial_tensors
from protocol.messages import Manifest, Message, ModelOffer, Need, Offer, Outcome, Receipt, RoundState, ServerState
from protocol.precision import Precision
from protocol.signing import SigningKey, VerifyKey
from protocol.topics import Door, Topics

HOST = "127.0.0.1"
SPEC = "resnet18:width=0.0625,stem=3x3,input=1x32x32,classes=10"
NETWORK = networks.parse(SPEC)
TOPICS = Topics("test")
DEVICE = "pi-1"
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32), dtype=np.uint8)


class Hasty(random.Random):
    """Hardly any jitter, so that tests need not wait."""

    def uniform(self, a: float, b: float) -> float:
        return min(max(a, b), 0.02)


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server on a free port; `answer` handles GET and POST. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """A whole answer."""
    request.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def export(seed: int = 0, precision: str = "W8A8") -> bytes:
    """An untrained model as the aggregator would ship it."""
    parsed = Precision.parse(precision)
    tensors = initial_tensors(NETWORK, parsed, seed)
    return export_model(NETWORK, parsed, tensors, pictures_NCHW=PICTURES, metadata={}).model


def slot_of(model: bytes, version: int = 1, precision: str = "W8A8") -> ModelSlot:
    """What the runtime calls it."""
    return ModelSlot(sha256(model).hexdigest(), version, SPEC, precision)


def write_digits(path: Path, count: int = 60) -> None:
    """scikit-learn's digits at 32×32, as the `.npz` a device may have."""
    digits = load_digits()
    images = (digits.images[:count] * (255 / 16)).round().astype(np.uint8)
    pictures = [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in images]
    np.savez(path, pictures=np.stack(pictures)[:, None], labels=digits.target[:count])


@contextmanager
def broker(kind: str, folder: Path) -> Iterator[BrokerUrl]:
    """A real broker on a free port."""
    with open_broker(kind, host=HOST, port=ports.free_port(HOST), folder=folder, report=lambda _: None) as url:
        yield url


@dataclass
class HandAggregator:
    """Speaks the aggregator's side of the wire with real keys and bytes, and does only what a test says."""

    mqtt: MqttClient
    blobs: dict[str, bytes] = field(default_factory=dict)
    key: SigningKey = field(default_factory=SigningKey.generate)
    device_key: bytes = b""
    url: str = ""
    sequence: int = 0
    read: int = 0
    assembly: Assembly | None = None
    heard: list[tuple[Door, Message]] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    payload: bytes = b""

    @classmethod
    @contextmanager
    def running(cls, url: BrokerUrl) -> Iterator["HandAggregator"]:
        """Connected to the broker, with its HTTP door open."""
        with MqttClient(url, AGGREGATOR) as mqtt:
            mqtt.subscribe(*TOPICS.subscriptions_of_aggregator("s0"))
            hand = cls(mqtt)
            with serving(lambda request: hand.answer(request, str(url))) as hand.url:
                yield hand

    def answer(self, request: BaseHTTPRequestHandler, broker_url: str) -> None:
        """Join, and blobs."""
        if request.command == "POST":
            body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
            self.device_key = bytes.fromhex(body["public_key"])
            values = {"fleet": "test", "server_key": self.key.public.raw.hex(), "broker": broker_url}
            reply(request, 201, json.dumps(values).encode())
            return
        data = self.blobs.get(request.path.rpartition("/")[2])
        reply(request, 404 if data is None else 200, data or b"")

    def say(self, topic: str, message: Message, *, retain: bool = False, key: SigningKey | None = None) -> bytes:
        """Seal and publish; returns the bytes, for replays."""
        self.sequence += 1
        stamp = Stamp(1, self.sequence)
        data = seal(message, topic=topic, sender=AGGREGATOR, stamp=stamp, time_ms=0, key=key or self.key)
        self.mqtt.publish(topic, data, retain=retain)
        return data

    def listen(self) -> None:
        """Read what has arrived since the last time."""
        while self.read < len(self.mqtt.received):
            message = self.mqtt.received[self.read]
            self.read += 1
            where = TOPICS.parse_upward(message.topic)
            if where.door is Door.CHUNK:
                self.chunks.append(where.chunk)
                if self.assembly is not None:
                    self.assembly.add(where.chunk, bytes(message.payload))
                continue
            key = VerifyKey(self.device_key)
            envelope = open_envelope(bytes(message.payload), topic=message.topic, key_of=lambda _, key=key: key)
            self.heard.append((where.door, envelope.message))

    def wait_for(self, kind: type[Any], holds: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next message of a kind for which `holds`; earlier ones are passed over."""

        def found() -> Any:
            self.listen()
            while self.heard:
                _, message = self.heard.pop(0)
                if isinstance(message, kind) and holds(message):
                    return message
            return None

        return eventually(found, f"a {kind.__name__}", within_s=60)

    def offer(self, task: str = "task-1", round_: int = 1, **changes: Any) -> Offer:
        """An offer whose base model is among the blobs, said to the device."""
        precision = changes.get("precision", "W8A8")
        tensors = initial_tensors(NETWORK, Precision.parse(precision), 0)
        base = encode(Header(SPEC, "fp32", precision, Content.WEIGHTS, 0), tensors, np.random.default_rng(0))
        digest = self.keep(base)
        fields: dict[str, Any] = {
            "task": task,
            "round": round_,
            "architecture": SPEC,
            "precision": precision,
            "recipe": "ef+sign",
            "base": digest,
            "base_bytes": len(base),
            "shard": "s0",
            "nonce": bytes(16),
            "deadline_s": 60.0,
            "epochs": 1,
            "batch": 16,
            "learning_rate": 0.05,
            "seed": 7,
        }
        offer = Offer(**fields | changes)
        self.say(TOPICS.device(DEVICE, "offer"), offer)
        return offer

    def keep(self, data: bytes) -> bytes:
        """Put a blob behind the HTTP door; its digest."""
        digest = sha256(data).digest()
        self.blobs[digest.hex()] = data
        return digest

    def need(self, manifest: Manifest, missing: bytes) -> None:
        """Ask for chunks."""
        self.say(TOPICS.receipt(DEVICE, manifest.task), Need(manifest.task, missing))

    def take_upload(self) -> tuple[Manifest, Payload]:
        """Let the device upload what it announces; no receipt yet."""
        manifest = self.wait_for(Manifest)
        self.assembly = Assembly(manifest.payload_bytes, manifest.chunk_bytes, manifest.digest)
        self.need(manifest, self.assembly.missing)

        def complete() -> bool:
            self.listen()
            assert self.assembly is not None
            return self.assembly.complete

        eventually(complete, "every chunk")
        self.payload = self.assembly.payload()
        return manifest, decode(self.payload)

    def receipt(self, manifest: Manifest, outcome: Outcome = Outcome.ACCEPTED, **changes: Any) -> bytes:
        """Say the final word."""
        key = changes.pop("key", None)
        fields: dict[str, Any] = {
            "task": manifest.task,
            "round": manifest.round,
            "digest": manifest.digest,
            "outcome": outcome,
        }
        return self.say(TOPICS.receipt(DEVICE, manifest.task), Receipt(**fields | changes), key=key)

    def offer_model(self, model: bytes, version: int, precision: str = "W8A8", **changes: Any) -> ModelOffer:
        """Offer a model to run."""
        digest = self.keep(model)
        fields: dict[str, Any] = {
            "version": version,
            "architecture": SPEC,
            "precision": precision,
            "digest": digest,
            "model_bytes": len(model),
            "reason": "it fits",
        }
        offer = ModelOffer(**fields | changes)
        self.say(TOPICS.device(DEVICE, "offer"), offer)
        return offer

    def say_state(self, *, online: bool) -> None:
        """Retained, as the aggregator does on every connect."""
        self.say(TOPICS.server_state, ServerState(online, "test"), retain=True)

    def say_round(self, round_: int, phase: str, job: str = "") -> None:
        """Retained."""
        self.say(TOPICS.round_state(job), RoundState(round_, phase, 0, job), retain=True)
