"""From what JSON holds to frozen dataclasses, by their own annotations; `dataclasses.asdict` is the way there."""

from dataclasses import fields, is_dataclass
from enum import StrEnum
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


class PlainError(ValueError):
    """A value is not what its place expects; the message names the place, the value and what was expected."""


def from_plain(kind: type[T], value: Any) -> T:
    """A dataclass from a JSON object. Keys that it does not know are ignored: a later version may have more.

    Raises:
        PlainError: something is missing or of the wrong type.
    """
    return _revived(kind, value, "document")


def _revived(kind: Any, value: Any, where: str) -> Any:
    """A value of an annotation: an optional, a tuple of one kind, a dictionary of strings, or what is no container."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None and NoneType in inner else _revived(inner[0], value, where)
    if origin is tuple:
        return tuple(_revived(inner[0], item, f"{where}[{n}]") for n, item in enumerate(_of(list, value, where)))
    if origin is dict:
        return {key: _revived(inner[1], item, f"{where}.{key}") for key, item in _of(dict, value, where).items()}
    return _single(kind, value, where)


def _single(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, _of(dict, value, where), where)
    if kind is float:
        return _finite(_of((int, float), value, where), where)
    if issubclass(kind, StrEnum):
        return _member(kind, value, where)
    return _of(kind, value, where)


def _dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    for name in names:
        if name not in value:
            raise PlainError(f"{where} has no {name!r}: expected {', '.join(names)}")
    try:
        return kind(**{name: _revived(hints[name], value[name], f"{where}.{name}") for name in names})
    except PlainError:
        raise
    except ValueError as error:  # a dataclass checks its own bounds
        raise PlainError(f"{where}: {error}") from error


def _member(kind: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError as error:
        raise PlainError(f"{where} is {value!r}: expected one of {', '.join(kind)}") from error


def _finite(value: float, where: str) -> float:
    """Python's reader takes NaN and Infinity, which JSON does not have."""
    if not isfinite(value):
        raise PlainError(f"{where} is {value}: expected a finite number")
    return float(value)


def _of(kind: type | tuple[type, ...], value: Any, where: str) -> Any:
    """`value` itself; a truth value is no number here."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in kinds)
        raise PlainError(f"{where} is {str(value)[:60]!r}: expected {expected}")
    return value
