"""A fixed msgpack schema: frozen dataclasses whose fields carry an integer key and a bound.

The same check runs in both directions; what fails on the way out is our fault (`LocalProtocolError`), on the way in
the peer's (`Malformed`). Unknown keys are ignored, so that a field can be added without breaking old readers; a
missing key takes the field's default, or is an error. Nothing on the wire ever names a type.
"""

from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from math import isfinite
from typing import Any, Final, Protocol, TypeVar

import msgpack

from protocol.errors import LocalProtocolError, Malformed, ProtocolError

T = TypeVar("T")

MAX_MAP_BYTES: Final = 64 * 1024
"""A birth with every list full is below 8 kB; more is no message of ours."""


class Kind(Protocol):
    """A bound on one value: `check` returns the value in its Python form or raises ValueError."""

    def check(self, value: Any) -> Any:
        """The value as the dataclass holds it."""
        ...

    def plain(self, value: Any) -> Any:
        """The value as msgpack packs it."""
        ...


class _Plain:
    def plain(self, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class Text(_Plain):
    """A string of at most `limit` characters."""

    limit: int

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or len(value) > self.limit:
            raise ValueError(f"expected text of at most {self.limit} characters")
        return value


@dataclass(frozen=True)
class Int(_Plain):
    """An integer in [low, high]."""

    low: int
    high: int

    def check(self, value: Any) -> int:
        if type(value) is not int or not self.low <= value <= self.high:
            raise ValueError(f"expected an integer from {self.low} to {self.high}")
        return value


@dataclass(frozen=True)
class Real(_Plain):
    """A finite number in [low, high]."""

    low: float
    high: float

    def check(self, value: Any) -> float:
        if type(value) not in {int, float} or not isfinite(value) or not self.low <= value <= self.high:
            raise ValueError(f"expected a finite number from {self.low:g} to {self.high:g}")
        return float(value)


@dataclass(frozen=True)
class Blob(_Plain):
    """Bytes, at most `limit` of them."""

    limit: int

    def check(self, value: Any) -> bytes:
        if not isinstance(value, bytes) or len(value) > self.limit:
            raise ValueError(f"expected at most {self.limit} bytes")
        return value


class Flag(_Plain):
    """True or false."""

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")  # noqa: TRY004 (one error type for every bound)
        return value


@dataclass(frozen=True)
class Choice:
    """A member of an enum, by value."""

    options: type[Enum]

    def check(self, value: Any) -> Enum:
        values = [option.value for option in self.options]
        if isinstance(value, bool) or value not in values:
            raise ValueError(f"expected one of {values}")
        return self.options(value)

    def plain(self, value: Enum) -> Any:
        return value.value


@dataclass(frozen=True)
class Sequence:
    """At most `limit` values of one kind, a tuple in Python."""

    kind: Kind
    limit: int

    def check(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) > self.limit:
            raise ValueError(f"expected a list of at most {self.limit}")
        return tuple(self.kind.check(item) for item in value)

    def plain(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.kind.plain(item) for item in value]


@dataclass(frozen=True)
class Record:
    """A nested dataclass of this schema."""

    cls: type[Any]

    def check(self, value: Any) -> Any:
        if isinstance(value, self.cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected a map for {self.cls.__name__}")  # noqa: TRY004 (as above)
        return from_map(self.cls, value)

    def plain(self, value: Any) -> dict[int, Any]:
        return to_map(value)


def key(number: int, kind: Kind, default: Any = MISSING) -> Any:
    """Declare a field with its wire key, its bound and, for fields added later, its default."""
    return field(default=default, metadata={"key": number, "kind": kind})


def to_map(message: Any) -> dict[int, Any]:
    """The message as a map with integer keys.

    Raises:
        LocalProtocolError: a field is out of bounds.
    """
    result = {}
    for item in fields(message):
        kind = item.metadata["kind"]
        try:
            value = kind.check(getattr(message, item.name))
        except ValueError as error:
            raise LocalProtocolError(_complaint(type(message), item.name, message, error)) from error
        result[item.metadata["key"]] = kind.plain(value)
    return result


def from_map(cls: type[T], values: dict[Any, Any]) -> T:
    """A message of type `cls` from a decoded map.

    Raises:
        Malformed: a field is missing or out of bounds.
    """
    arguments = {}
    for item in fields(cls):  # type: ignore[arg-type]
        number = item.metadata["key"]
        if number not in values:
            if item.default is MISSING:
                raise Malformed(f"{cls.__name__}.{item.name}: key {number} is missing")
            continue
        try:
            arguments[item.name] = item.metadata["kind"].check(values[number])
        except ProtocolError:
            raise
        except (ValueError, TypeError) as error:
            raise Malformed(f"{cls.__name__}.{item.name}: {error}") from error
    return cls(**arguments)


def _complaint(cls: type[Any], name: str, message: Any, error: ValueError) -> str:
    return f"{cls.__name__}.{name} = {getattr(message, name)!r}: {error}"


def unpack_map(data: bytes) -> dict[Any, Any]:
    """One msgpack map of at most `MAX_MAP_BYTES`; no declared length inside it can exceed its own bytes.

    Raises:
        Malformed: not exactly one map, or over a limit.
    """
    if len(data) > MAX_MAP_BYTES:
        raise Malformed(f"message of {len(data)} bytes: expected at most {MAX_MAP_BYTES}")
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise Malformed(f"not a msgpack message: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"expected a msgpack map, got {type(value).__name__}")
    return value
