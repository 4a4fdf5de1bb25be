"""`name=value,name=value` as meters are configured with."""

from collections.abc import Callable, Mapping
from typing import Any


def parse_options(text: str, kinds: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The values that are given, each by its kind.

    Args:
        text: as configured, empty for none.
        kinds: the names there are, and what makes a value of each text.

    Raises:
        ValueError: a name that is not there or comes twice, or a value that its kind refuses.
    """
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name not in kinds or name in values:
            raise ValueError(f"{part!r}: expected {', '.join(f'{kind}=…' for kind in kinds)}, each once at most")
        try:
            values[name] = kinds[name](value)
        except ValueError as error:
            raise ValueError(f"{name}={value}: {error}") from error
    return values


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in [low, high]; 0x… counts too."""

    def parse(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return parse


def positive(high: float, unit: str) -> Callable[[str], float]:
    """A number in (0, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0.0 < value <= high:
            raise ValueError(f"expected a number above 0, at most {high:g} {unit}")
        return value

    return parse
