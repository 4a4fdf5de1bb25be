"""Envelopes, messages, chunks, bitmaps and topics, on any bytes."""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from typing import Final

import golden

from fuzzing.compare import Disagreement, Target, bytes_of, outcome, require_same, vectors_of
from protocol.chunks import Assembly, chunk_count, from_bitmap, to_bitmap
from protocol.envelope import DOMAIN, Stamp, open_envelope, seal
from protocol.messages import MAX_CHUNKS, MAX_PAYLOAD_BYTES
from protocol.replay import NOTHING_SEEN, admit
from protocol.topics import Topics

TOPIC: Final = "bitfleet/v1/home/d/pi-07/state"
MAX_SEED: Final = 5000


def run_envelope(data: bytes) -> None:
    """Any bytes as an envelope, and as a map under a signature that is right."""
    keys = {"pi-07": golden.KEY.public}
    outcome(lambda: open_envelope(data, topic=TOPIC, key_of=keys.get))
    signed = DOMAIN + len(TOPIC).to_bytes(2, "little") + TOPIC.encode() + data
    envelope = outcome(lambda: open_envelope(golden.KEY.sign(signed) + data, topic=TOPIC, key_of=keys.get))
    if envelope is None:
        return
    admit(NOTHING_SEEN, envelope)
    sealed = seal(
        envelope.message,
        topic=TOPIC,
        sender=envelope.sender,
        stamp=Stamp(envelope.stamp.boot, envelope.stamp.sequence),
        time_ms=envelope.time_ms,
        key=golden.KEY,
    )
    require_same(open_envelope(sealed, topic=TOPIC, key_of=keys.get), envelope, "message there and back")


def envelope_seeds() -> Iterator[bytes]:
    """Maps of the kit's envelopes, good and bad."""
    for vector in [*vectors_of("4-messages/messages.json"), *vectors_of("4-messages/refused.json")]:
        yield bytes_of(vector)[64:][:MAX_SEED]


def run_chunks(data: bytes) -> None:
    """Bytes: number of chunks in two bytes, bitmap; the same as chunks of an upload, as sizes and as a topic."""
    count, bitmap = int.from_bytes(data[:2], "little"), data[2:]
    numbers = outcome(lambda: list(from_bitmap(bitmap, count)))
    if numbers is not None:
        require_same(to_bitmap(numbers, count), bitmap, "bitmap there and back")
    sizes = int.from_bytes(data[:6], "little", signed=True), int.from_bytes(data[6:10], "little", signed=True)
    chunks = outcome(lambda: chunk_count(*sizes))
    if chunks is not None and not (1 <= chunks <= MAX_CHUNKS and chunks * sizes[1] >= sizes[0] <= MAX_PAYLOAD_BYTES):
        raise Disagreement(f"{sizes} are {chunks} chunks")
    assembly = Assembly(25, 10, sha256(bytes(25)).digest())
    for start in range(0, len(data), 11):
        outcome(partial(assembly.add, data[start] - 1, data[start + 1 : start + 11]))
    outcome(lambda: Topics("home").parse_upward(data.decode("utf-8", errors="replace")))


def chunk_seeds() -> Iterator[bytes]:
    """Bitmaps of the kit, an upload, topics."""
    for vector in vectors_of("4-messages/bitmaps.json"):
        yield vector["chunks"].to_bytes(2, "little") + bytes_of(vector)
    yield b"\x01" + bytes(10) + b"\x02" + bytes(10) + b"\x03" + bytes(5)
    topics = Topics("home")
    yield topics.manifest("s0", "pi-07", "t1").encode()
    yield topics.chunk("s0", "pi-07", "t1", 12).encode()
    yield topics.device("pi-07", "birth").encode()


TARGETS: Final[dict[str, Target]] = {
    "envelope": Target(run_envelope, envelope_seeds),
    "chunks": Target(run_chunks, chunk_seeds),
}
