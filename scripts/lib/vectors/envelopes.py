"""Signed messages, those that must be refused, topics, chunks and bitmaps."""

from enum import Enum
from typing import Any, Final

import golden
import msgpack

from protocol.chunks import chunk_count, to_bitmap
from protocol.envelope import DOMAIN, seal
from protocol.messages import NUMBERS, Decline, Message, Need, State, Status
from protocol.schema import MAX_MAP_BYTES, to_map
from protocol.signing import SigningKey
from vectors import Files, Vector

TOPIC: Final = "bitfleet/v1/home/d/pi-07/state"
OTHER_KEY: Final = SigningKey(bytes(32))
STATE: Final = State(Status.ONLINE, 7)
HEAD: Final = {1: 1, 2: 1, 3: "pi-07", 4: 3, 5: 14, 6: 1_700_000_000_000}
BODY: Final = {1: "online", 2: 7}
MAX: Final = 1 << 62


def messages() -> Vector:
    """One of every type, as it is signed."""
    facts = {
        "requirement": "BF-010, BF-011",
        "private_key": golden.KEY.raw.hex(),
        "public_key": golden.KEY.public.raw.hex(),
        "topic": golden.TOPIC,
        "head": {"1": 1, "3": golden.SENDER, "4": golden.STAMP.boot, "5": golden.STAMP.sequence, "6": golden.TIME_MS},
    }
    return facts | {"vectors": [_sealed(message) for message in golden.MESSAGES]}


def _sealed(message: Message) -> Vector:
    data = seal(
        message, topic=golden.TOPIC, sender=golden.SENDER, stamp=golden.STAMP, time_ms=golden.TIME_MS, key=golden.KEY
    )
    body = plain(to_map(message))
    return {"message": type(message).__name__, "type": NUMBERS[type(message)], "body": body, "bytes": data.hex()}


def plain(value: Any) -> Any:
    """As JSON has it: keys as text, bytes as {"hex": …}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def signed(values: object, topic: str = TOPIC, key: SigningKey = golden.KEY) -> bytes:
    """Any map under a signature that is right."""
    content = values if isinstance(values, bytes) else msgpack.packb(values)
    name = topic.encode()
    return key.sign(DOMAIN + len(name).to_bytes(2, "little") + name + content) + content


def refused() -> Vector:
    """Envelopes that a receiver at `topic`, who knows only the key of pi-07, turns away."""
    facts = {"topic": TOPIC, "known": {"pi-07": golden.KEY.public.raw.hex()}}
    rows = [*_altered(), *_heads(), *_bodies(), *_shapes()]
    vectors = [
        {"name": name, "requirement": number, "refusal": code, "bytes": data.hex()} for name, number, code, data in rows
    ]
    return facts | {"vectors": vectors}


Row = tuple[str, str, str, bytes]


def _altered() -> list[Row]:
    good, number = signed({**HEAD, 7: BODY}), "BF-011"
    body = len(good) - 1
    places = {"first of the signature": 0, "middle of the signature": 8 * 32 + 3, "last of the signature": 511}
    places |= {"session": 8 * body, "a letter of the sender": 8 * good.index(b"pi-07") + 4}
    rows = []
    for what, bit in places.items():
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        rows.append((f"one bit flipped: {what}", number, "forged", bytes(data)))
    rows[-1] = (rows[-1][0], "BF-012", "unknown-device", rows[-1][3])
    rows.append(("moved from another topic", number, "forged", signed({**HEAD, 7: BODY}, TOPIC.replace("07", "08"))))
    rows.append(("another key", number, "forged", signed({**HEAD, 7: BODY}, key=OTHER_KEY)))
    rows.append(("the map alone was signed", number, "forged", golden.KEY.sign(good[64:]) + good[64:]))
    rows.append(("a sender without a key", "BF-012", "unknown-device", signed({**HEAD, 3: "pi-99", 7: BODY})))
    return rows


def _heads() -> list[Row]:
    changes: dict[str, tuple[str, str, dict[int, object]]] = {
        "wire version 2": ("BF-013", "unsupported", {1: 2}),
        "wire version 0": ("BF-013", "unsupported", {1: 0}),
        "type 200": ("BF-013", "unsupported", {2: 200}),
        "type 0": ("BF-013", "unsupported", {2: 0}),
        "type 256": ("BF-015", "malformed", {2: 256}),
        "version as text": ("BF-015", "malformed", {1: "1"}),
        "sender of 65 letters": ("BF-015", "malformed", {3: "a" * 65}),
        "sender as bytes": ("BF-015", "malformed", {3: b"pi-07"}),
        "boot below 0": ("BF-015", "malformed", {4: -1}),
        "boot as float": ("BF-015", "malformed", {4: 3.0}),
        "sequence above 2^62": ("BF-015", "malformed", {5: MAX + 1}),
        "sequence true": ("BF-015", "malformed", {5: True}),
        "clock below 0": ("BF-015", "malformed", {6: -1}),
    }
    rows = [(name, number, code, signed({**HEAD, 7: BODY, **new})) for name, (number, code, new) in changes.items()]
    for key in HEAD:
        without = {number: value for number, value in HEAD.items() if number != key}
        rows.append((f"head without key {key}", "BF-015", "malformed", signed({**without, 7: BODY})))
    return rows


def _bodies() -> list[Row]:
    telemetry = to_map(golden.MESSAGES[2])
    bodies: dict[str, tuple[int, object]] = {
        "a body that is a list": (1, [1]),
        "a body that is nil": (1, None),
        "State without session": (1, {1: "online"}),
        "State without status": (1, {2: 7}),
        "a status that is none": (1, {1: "dancing", 2: 7}),
        "session below 0": (1, {1: "online", 2: -1}),
        "session above its bound": (1, {1: "online", 2: (1 << 40) + 1}),
        "session true": (1, {1: "online", 2: True}),
        "session as float": (1, {1: "online", 2: 7.0}),
        "status as list": (1, {1: ["online"], 2: 7}),
        "progress above 1": (3, {**telemetry, 3: 1.5}),
        "progress NaN": (3, {**telemetry, 3: float("nan")}),
        "latency infinite": (3, {**telemetry, 7: float("inf")}),
        "a note of 401 letters": (3, {**telemetry, 8: "n" * 401}),
        "a bitmap longer than 2048 bytes": (9, {1: "t1", 2: bytes(2049)}),
    }
    rows = [
        (name, "BF-015", "malformed", signed({**HEAD, 2: number, 7: body})) for name, (number, body) in bodies.items()
    ]
    return [*rows, ("no body", "BF-015", "malformed", signed(HEAD))]


def _shapes() -> list[Row]:
    good = msgpack.packb({**HEAD, 7: BODY})
    filled = {**HEAD, 7: BODY, 99: b""}
    room = MAX_MAP_BYTES - len(msgpack.packb(filled)) - 1  # its own length takes two bytes instead of one
    return [
        ("nothing", "BF-010", "incomplete", b""),
        ("a signature alone", "BF-010", "incomplete", signed({**HEAD, 7: BODY})[:64]),
        ("a list", "BF-010", "malformed", signed([1, 2, 3])),
        ("a map cut short", "BF-014", "malformed", signed(good[:-1])),
        ("a byte behind the map", "BF-010", "malformed", signed(good + b"\x00")),
        ("two maps", "BF-010", "malformed", signed(good + good)),
        ("a list of four thousand million", "BF-014", "malformed", signed(b"\x81\x01\xdd\xff\xff\xff\xff")),
        ("nesting without end", "BF-014", "malformed", signed(b"\x91" * 5000)),
        ("a map of 65,537 bytes", "BF-013", "malformed", signed({**filled, 99: bytes(room + 1)})),
    ]


def sequences() -> Vector:
    """Stamps of one sender in the order they arrive, and which are refused as `replayed`."""
    state, decline, need = (NUMBERS[cls] for cls in (State, Decline, Need))
    vectors = [
        {"name": "rising", "stamps": [[decline, 1, 5, True], [decline, 1, 6, True], [decline, 2, 0, True]]},
        {"name": "again", "stamps": [[decline, 1, 5, True], [decline, 1, 5, False]]},
        {"name": "older", "stamps": [[decline, 1, 5, True], [decline, 1, 4, False], [decline, 0, 99, False]]},
        {"name": "types apart", "stamps": [[decline, 1, 5, True], [need, 1, 2, True], [need, 1, 2, False]]},
        {"name": "retained messages", "stamps": [[state, 1, 5, True], [state, 1, 5, True]]},
    ]
    return {"requirement": "BF-016, BF-017", "columns": ["type", "boot", "sequence", "taken"], "vectors": vectors}


def chunks() -> Vector:
    """Sizes of an upload, the chunks it has, and the last one's size; none where it is refused."""
    sizes = [(1, 1), (1, 65_536), (65_536, 65_536), (65_537, 65_536), (25, 10), (2**30, 65_536), (16_384, 1)]
    vectors: list[Vector] = []
    for payload_bytes, chunk_bytes in sizes:
        count = chunk_count(payload_bytes, chunk_bytes)
        last = payload_bytes - (count - 1) * chunk_bytes
        vectors.append({"payload": payload_bytes, "chunk": chunk_bytes, "chunks": count, "last": last})
    for payload_bytes, chunk_bytes in [(0, 10), (10, 0), (2**30 + 1, 2**20), (16_385, 1), (2**30, 65_535)]:
        vectors.append({"payload": payload_bytes, "chunk": chunk_bytes, "refusal": "malformed"})
    return {"requirement": "BF-030", "vectors": vectors}


def bitmaps() -> Vector:
    """Which chunks a bitmap names."""
    named: list[tuple[int, list[int]]] = [(1, []), (1, [0]), (8, [7]), (9, [8]), (10, [0, 9]), (16, [*range(16)])]
    named.append((16_384, [0, 8191, 16_383]))
    vectors: list[Vector] = [{"chunks": n, "named": which, "bytes": to_bitmap(which, n).hex()} for n, which in named]
    for count, data in [(10, ""), (10, "00"), (10, "0004"), (10, "000000"), (8, "0100"), (1, "02"), (16_384, "00")]:
        vectors.append({"chunks": count, "refusal": "malformed", "bytes": data})
    return {"requirement": "BF-032", "vectors": vectors}


FILES: Final[Files] = {
    "4-messages/messages.json": messages,
    "4-messages/refused.json": refused,
    "4-messages/replay.json": sequences,
    "4-messages/chunks.json": chunks,
    "4-messages/bitmaps.json": bitmaps,
}
