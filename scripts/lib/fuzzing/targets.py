"""What is fuzzed: a function of any bytes for each target, which fails by raising, and seeds from the conformance kit.

A decoder may give a value or raise one of the protocol's errors. Where `tests/conformance/independent.py` decodes the
same, both must give the same values, or both refuse: a difference is a defect of one of them, or of SPEC.md.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from zlib import crc32

import golden
import numpy as np

from protocol.chunks import Assembly, chunk_count, from_bitmap, to_bitmap
from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack
from protocol.codec.golomb import Golomb
from protocol.codec.huffman import Huffman
from protocol.codec.payload import decode, encode, read_header
from protocol.codec.range_coder import RangeCoder
from protocol.codec.range_queue import PlainDecoder, PlainEncoder
from protocol.codec.recipe import Recipe
from protocol.codec.rotation import padded_size
from protocol.codec.varint import read_varint, varint
from protocol.envelope import DOMAIN, Stamp, open_envelope, seal
from protocol.errors import RemoteProtocolError
from protocol.messages import MAX_CHUNKS, MAX_PAYLOAD_BYTES
from protocol.networks import parse
from protocol.precision import join, parse_several
from protocol.reader import Reader
from protocol.replay import NOTHING_SEEN, admit
from protocol.topics import Topics

KIT: Final = Path(__file__).parent.parent.parent.parent / "tests" / "conformance"
CODERS: Final[Mapping[str, tuple[Coder, ...]]] = MappingProxyType(
    {
        "bitpack": (Bitpack(),),
        "golomb": (Golomb(),),
        "huffman": (Huffman(),),
        "rc": (RangeCoder(), RangeCoder(PlainEncoder, PlainDecoder)),
    }
)
MAX_CODES: Final = 600
MAX_SEED: Final = 20_000
"""Bytes of the largest seed: fuzzing gets nowhere with larger ones."""
TOPIC: Final = "bitfleet/v1/home/d/pi-07/state"
SPREAD: Final = 2.0**-20 * 2.7326
"""Of a rotation, times the scale and the root of the block's size (BF-059)."""

T = TypeVar("T")
sys.path.insert(0, str(KIT))
independent: Any = import_module("independent")


class Disagreement(Exception):
    """Two decoders of the same bytes disagree, or bytes do not survive a way there and back."""


@dataclass(frozen=True)
class Target:
    """What is run on any bytes, and bytes to begin with."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def outcome(call: Callable[[], T]) -> T | None:
    """The value; None where the bytes are refused."""
    try:
        return call()
    except RemoteProtocolError:
        return None


def other(call: Callable[[], T]) -> T | None:
    """The same of the independent decoder."""
    try:
        return call()
    except independent.Refused:
        return None


def whole(read: Callable[[Reader], T], data: bytes) -> T:
    """What a reader of all the bytes gives."""
    reader = Reader(data)
    value = read(reader)
    reader.finish()
    return value


def all_of(read: Callable[[Any], T], data: bytes) -> T:
    """The same of the independent decoder."""
    source = independent.Bytes(data)
    value = read(source)
    source.end()
    return value


def require_same(one: object, two: object, what: str) -> None:
    """Both refuse, or both give the same."""
    if one != two:
        raise Disagreement(f"{what}: {one!r:.300} and {two!r:.300}")


# --- codes ---


def run_coder(name: str, data: bytes) -> None:
    """Bytes: symbols less two, number of codes in two bytes, codes."""
    if len(data) < 3:
        return
    symbols, count, rest = 2 + data[0] % 255, int.from_bytes(data[1:3], "little") % MAX_CODES, data[3:]
    decoder = independent.CODERS[name]
    theirs = other(lambda: bytes(all_of(lambda source: decoder(source, count, symbols), rest)))
    for coder in CODERS[name]:
        ours = outcome(lambda coder=coder: whole(lambda r: coder.decode(r, count, symbols).tobytes(), rest))  # type: ignore[misc]
        require_same(ours, theirs, f"{name}, {count} codes below {symbols}")
        if ours is not None:
            codes_N = np.frombuffer(ours, dtype=np.uint8)
            again = whole(lambda r: coder.decode(r, count, symbols), coder.encode(codes_N, symbols))  # noqa: B023
            require_same(again.tobytes(), ours, f"{name} there and back")


def coder_seeds(name: str) -> Iterator[bytes]:
    """Vectors of one coder, good and bad."""
    refused = (vector for vector in _vectors("5-refused/coders.json") if vector["coder"] == name)
    choices = (vector for vector in _vectors("1-coders/choices.json") if vector["coder"] == name)
    for vector in [*_vectors(f"1-coders/{name}.json"), *choices, *refused]:
        if vector["count"] < MAX_CODES:
            yield bytes([vector["symbols"] - 2]) + vector["count"].to_bytes(2, "little") + _bytes(vector)


def run_varint(data: bytes) -> None:
    """A number, and whatever follows it."""
    limit = 2**63 - 1
    ours = outcome(lambda: whole(lambda reader: read_varint(reader, limit, "number"), data))
    require_same(ours, other(lambda: all_of(lambda source: independent.varint(source, limit), data)), "varint")
    if ours is not None:
        require_same(varint(ours), data, "varint there and back")


def varint_seeds() -> Iterator[bytes]:
    """Numbers of the kit."""
    yield from map(_bytes, _vectors("1-coders/varint.json"))


# --- tensors and payloads ---


def run_tensor(data: bytes) -> None:
    """Bytes: which recipe, number of values less one, tensor."""
    if len(data) < 2:
        return
    recipe, count, rest = golden.RECIPES[data[0] % len(golden.RECIPES)], 1 + data[1], data[2:]
    codec = Recipe.parse(recipe).weights
    ours = outcome(lambda: whole(lambda reader: codec.read(reader, count, 5).values(), rest))
    theirs = other(lambda: all_of(lambda source: independent.codec_of(recipe)(source, count, 5), rest))
    if ours is None or theirs is None:
        require_same(ours is None, theirs is None, f"{recipe} refused")
        return
    scales = np.frombuffer(rest[: 4 * len(independent.blocks_of(count))], dtype="<f4") if "eden" in recipe else [0.0]
    bound = SPREAD * float(np.max(scales)) * padded_size(count) ** 0.5 + 2.0**-126 if "eden" in recipe else 0.0
    if not np.isfinite(ours).all() or (np.abs(ours - np.array(theirs)) > bound).any():
        raise Disagreement(f"{recipe}: {ours} and {theirs}")


def tensor_seeds() -> Iterator[bytes]:
    """Tensors of the kit in recipes that have golden bytes."""
    files = sorted((KIT / "v1" / "2-tensors").glob("*.json"))
    for vector in (vector for file in files for vector in json.loads(file.read_text())["vectors"]):
        if vector.get("recipe") in golden.RECIPES and vector["count"] <= 256:
            yield bytes([golden.RECIPES.index(vector["recipe"]), vector["count"] - 1]) + _bytes(vector)


def run_payload(data: bytes) -> None:
    """Any payload; as at ingest, the header decides before the tensors are touched: here, by whether it has a table."""
    found = outcome(lambda: read_header(data))
    if found is None or found[0].architecture not in TABLES:
        if found is None and other(lambda: independent.payload(data, TABLES)) is not None:
            raise Disagreement("a header that only the independent decoder takes")
        return
    ours = outcome(lambda: decode(data))
    if ours is not None:
        for name, values in ours.tensors.items():
            if not np.isfinite(values).all():
                raise Disagreement(f"{name} is not finite")
        if max(float(np.abs(values).max()) for values in ours.tensors.values()) < 1e30:
            again = decode(encode(ours.header, ours.tensors, np.random.default_rng(0)))
            require_same(again.tensors.keys(), ours.tensors.keys(), "tensors there and back")
    if crc32(data) % 4 == 0:  # the plain decoder is slow
        theirs = other(lambda: independent.payload(data, TABLES))
        require_same(ours is None, theirs is None, "payload refused")
        if ours is not None and theirs is not None and golden.ROTATED not in ours.header.recipe:
            for name, values in ours.tensors.items():
                require_same(values.reshape(-1).tolist(), theirs[name], name)


def payload_seeds() -> Iterator[bytes]:
    """Payloads of the kit and of tests/golden, good and bad."""
    for folder in (KIT / "v1" / "3-payloads", golden.FOLDER):
        for file in sorted(folder.glob("*.bin")):
            data = file.read_bytes()
            if data.startswith(b"BF") and len(data) <= MAX_SEED:
                yield data
    yield from map(_bytes, _vectors("5-refused/payloads.json"))


def _tables() -> dict[str, Any]:
    files = sorted((KIT / "v1" / "tables" / "networks").glob("*.json"))
    tables = {table["architecture"]: table for file in files for table in json.loads(file.read_text())["vectors"]}
    return {name: table for name, table in tables.items() if "8x8" in name}


def run_spelling(data: bytes) -> None:
    """Architectures, recipes and precisions: what is taken has one spelling, and is what it says."""
    text = data.decode("utf-8", errors="replace")
    network = outcome(lambda: parse(text))
    require_same(network.spec if network else text, text, "architecture")
    precisions = outcome(lambda: parse_several(text))
    require_same(join(precisions) if precisions else text, text, "precisions")
    recipe = outcome(lambda: Recipe.parse(text))
    if recipe is not None:
        require_same(Recipe.parse(str(recipe)), recipe, "recipe there and back")
    taken = recipe is not None and str(recipe) == text
    require_same(taken, other(lambda: independent.codec_of(text)) is not None, f"recipe {text!r}")


def spelling_seeds() -> Iterator[bytes]:
    """Names of the kit."""
    names = {*golden.RECIPES, *TABLES, "fp32", "W4A8", "W8A8+W4A4+W1A1", "fp32+W16A32"}
    yield from (name.encode() for name in sorted(names))


# --- messages ---


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
    for vector in [*_vectors("4-messages/messages.json"), *_vectors("4-messages/refused.json")]:
        yield _bytes(vector)[64:].replace(b"bitfleet/v1/home/d/pi-07/golden", TOPIC.encode())[:MAX_SEED]


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
    for vector in _vectors("4-messages/bitmaps.json"):
        yield vector["chunks"].to_bytes(2, "little") + _bytes(vector)
    yield b"\x01" + bytes(10) + b"\x02" + bytes(10) + b"\x03" + bytes(5)
    topics = Topics("home")
    yield topics.manifest("s0", "pi-07", "t1").encode()
    yield topics.chunk("s0", "pi-07", "t1", 12).encode()
    yield topics.device("pi-07", "birth").encode()


def _vectors(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((KIT / "v1" / name).read_text())["vectors"]
    return vectors


def _bytes(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["bytes"])


TABLES: Final = _tables()
TARGETS: Final[dict[str, Target]] = {
    "payload": Target(run_payload, payload_seeds),
    "tensor": Target(run_tensor, tensor_seeds),
    **{name: Target(partial(run_coder, name), partial(coder_seeds, name)) for name in CODERS},
    "varint": Target(run_varint, varint_seeds),
    "spelling": Target(run_spelling, spelling_seeds),
    "envelope": Target(run_envelope, envelope_seeds),
    "chunks": Target(run_chunks, chunk_seeds),
}
