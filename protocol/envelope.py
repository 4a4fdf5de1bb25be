"""A message sealed by its sender: Ed25519 over the topic, the sender, its (boot, sequence) and the body.

Layout: 64 signature bytes, then one msgpack map {1: wire version, 2: message type, 3: sender, 4: boot, 5: sequence,
6: wall clock in ms, 7: body map}. What is signed is

    "bitfleet/1" · u16 length of the topic · topic · the msgpack map as sent

so a broker can neither alter a message nor move it to another topic.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from protocol.errors import Forged, Incomplete, Malformed, Refusal, Unsupported
from protocol.messages import NUMBERS, TYPES, Message
from protocol.schema import Int, Text, from_map, key, to_map, unpack_map
from protocol.signing import SIGNATURE_BYTES, SigningKey, VerifyKey

WIRE_VERSION: Final = 1
DOMAIN: Final = b"bitfleet/1"
AGGREGATOR: Final = "aggregator"
"""The sender name of the aggregator; no device may take it."""


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """When a sender said something, by its own count: boot rises with every start, sequence with every message."""

    boot: int
    sequence: int


@dataclass(frozen=True, slots=True)
class _Head:
    version: int = key(1, Int(0, 255))
    type: int = key(2, Int(0, 255))
    sender: str = key(3, Text(64))
    boot: int = key(4, Int(0, 1 << 62))
    sequence: int = key(5, Int(0, 1 << 62))
    time_ms: int = key(6, Int(0, 1 << 62))


_BODY = 7


@dataclass(frozen=True, slots=True)
class Envelope:
    """An opened envelope. `time_ms` is the sender's wall clock, for people to read, never to decide by."""

    sender: str
    stamp: Stamp
    time_ms: int
    message: Message


def seal(message: Message, *, topic: str, sender: str, stamp: Stamp, time_ms: int, key: SigningKey) -> bytes:
    """Seal `message` for `topic`.

    Raises:
        LocalProtocolError: a field of the message is out of bounds.
    """
    head = _Head(WIRE_VERSION, NUMBERS[type(message)], sender, stamp.boot, stamp.sequence, time_ms)
    content = msgpack.packb(to_map(head) | {_BODY: to_map(message)})
    return key.sign(_signed(topic, content)) + content


def open_envelope(data: bytes, *, topic: str, key_of: Callable[[str], VerifyKey | None]) -> Envelope:
    """Check and open an envelope.

    Args:
        data: as received.
        topic: where it was received.
        key_of: the public key of a sender, None for an unknown one.

    Raises:
        RemoteProtocolError: too short, malformed, of an unknown version, type or sender, or forged.
    """
    if len(data) <= SIGNATURE_BYTES:
        raise Incomplete(f"envelope of {len(data)} bytes: expected more than {SIGNATURE_BYTES}")
    signature, content = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    values = unpack_map(content)
    head = from_map(_Head, values)
    if head.version != WIRE_VERSION:
        raise Unsupported(f"wire version {head.version}: this side speaks {WIRE_VERSION}")
    verify_key = key_of(head.sender)
    if verify_key is None:
        raise Forged(f"sender {head.sender!r} is not known here", Refusal.UNKNOWN_DEVICE)
    verify_key.verify(signature, _signed(topic, content))
    return Envelope(head.sender, Stamp(head.boot, head.sequence), head.time_ms, _message(head.type, values))


def _message(number: int, values: dict[Any, Any]) -> Message:
    cls, body = TYPES.get(number), values.get(_BODY)
    if cls is None:
        raise Unsupported(f"message type {number}: this side knows {sorted(TYPES)}")
    if not isinstance(body, dict):
        raise Malformed(f"body of message type {number}: expected a map, got {type(body).__name__}")
    message: Message = from_map(cls, body)
    return message


def _signed(topic: str, content: bytes) -> bytes:
    name = topic.encode()
    return DOMAIN + struct.pack("<H", len(name)) + name + content
