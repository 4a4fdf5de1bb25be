"""Numbers and codes: every coder on any bytes."""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np

from fuzzing.compare import Target, all_of, bytes_of, independent, other, outcome, require_same, vectors_of, whole
from protocol.codec.base import Coder
from protocol.codec.bitpack import Bitpack
from protocol.codec.golomb import Golomb
from protocol.codec.huffman import Huffman
from protocol.codec.range_coder import RangeCoder
from protocol.codec.range_queue import PlainDecoder, PlainEncoder
from protocol.codec.varint import read_varint, varint

CODERS: Final[Mapping[str, tuple[Coder, ...]]] = MappingProxyType(
    {
        "bitpack": (Bitpack(),),
        "golomb": (Golomb(),),
        "huffman": (Huffman(),),
        "rc": (RangeCoder(), RangeCoder(PlainEncoder, PlainDecoder)),
    }
)
MAX_CODES: Final = 600


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
    refused = (vector for vector in vectors_of("5-refused/coders.json") if vector["coder"] == name)
    choices = (vector for vector in vectors_of("1-coders/choices.json") if vector["coder"] == name)
    for vector in [*vectors_of(f"1-coders/{name}.json"), *choices, *refused]:
        if vector["count"] < MAX_CODES:
            yield bytes([vector["symbols"] - 2]) + vector["count"].to_bytes(2, "little") + bytes_of(vector)


def run_varint(data: bytes) -> None:
    """A number, and whatever follows it."""
    limit = 2**63 - 1
    ours = outcome(lambda: whole(lambda reader: read_varint(reader, limit, "number"), data))
    require_same(ours, other(lambda: all_of(lambda source: independent.varint(source, limit), data)), "varint")
    if ours is not None:
        require_same(varint(ours), data, "varint there and back")


def varint_seeds() -> Iterator[bytes]:
    """Numbers of the kit."""
    yield from map(bytes_of, vectors_of("1-coders/varint.json"))


TARGETS: Final[dict[str, Target]] = {
    **{name: Target(partial(run_coder, name), partial(coder_seeds, name)) for name in CODERS},
    "varint": Target(run_varint, varint_seeds),
}
