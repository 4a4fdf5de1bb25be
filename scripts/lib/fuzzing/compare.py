"""What every target needs: bytes from the conformance kit, and a second decoder to agree with.

A decoder may give a value or raise one of the protocol's errors. Where `tests/conformance/independent.py` decodes the
same, both must give the same values, or both refuse: a difference is a defect of one of them, or of SPEC.md.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from protocol.errors import RemoteProtocolError
from protocol.reader import Reader

KIT: Final = Path(__file__).parent.parent.parent.parent / "tests" / "conformance"
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


def vectors_of(name: str) -> list[dict[str, Any]]:
    """The vectors of one file of the kit."""
    vectors: list[dict[str, Any]] = json.loads((KIT / "v1" / name).read_text())["vectors"]
    return vectors


def bytes_of(vector: dict[str, Any]) -> bytes:
    """The bytes of a vector."""
    return bytes.fromhex(vector["bytes"])
