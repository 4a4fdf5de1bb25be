"""The agent's settings: a TOML file, overridden key by key, checked once and frozen.

A wrong value stops the program with its key, the value and what was expected; an unknown key is an error too, since a
misspelt limit is no limit.
"""

import difflib
import math
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import time
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from edge.backoff import CAP_S
from edge.meters.choose import AUTO, parse_meter, without_login
from edge.trainer_process import TrainerLimits
from protocol.errors import LocalProtocolError
from protocol.topics import check_name

GIGABYTE: Final = 1 << 30


class ConfigError(Exception):
    """A setting is wrong; the message names key, value and expectation."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local time of day in which the device does not work for the fleet; may pass midnight."""

    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `22:00-06:30`.

        Raises:
            ValueError: it is not two times of day, or they are the same.
        """
        match = re.fullmatch(r"(\d{2}:\d{2})-(\d{2}:\d{2})", text)
        if match is None or match[1] == match[2]:
            raise ValueError("expected two different times of day, for example 22:00-06:30")
        return cls(time.fromisoformat(match[1]), time.fromisoformat(match[2]))

    def contains(self, now: time) -> bool:
        """Whether `now` lies in [begin, end)."""
        if self.begin < self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set. Names are the keys of the file.

    Attributes:
        state_dir: where key, journal, outbox and models live.
        device: name in the fleet.
        aggregator: its URL, empty where none is needed.
        token_file: holds the join token; erased once it was used. Empty: `<state_dir>/token`.
        data: the device's pictures, None for a member that only infers.
        classes: the fleet's class names in order; needed where the folders here are only some of them.
        budget_j_per_day: energy for inference, 0 for a device on mains power.
        inferences_per_day: how many the budget is for.
        max_latency_ms: the longest an inference may take, 0 for any time.
        threads: that compute an inference; they never spin while they wait.
        quiet_hours: when to stay quiet.
        max_temperature_c: above it no work is taken on.
        min_battery_percent: below it and unplugged, no work is taken on.
        trainer_memory_bytes: limit of the trainer, 0 for none.
        trainer_threads: of the trainer.
        trainer_linger_s: how long the trainer stays in memory for the next round.
        outbox_quota_bytes: limit of all updates waiting for their receipt.
        meter: what measures energy, see `edge.meters.choose`.
        max_backoff_s: longest pause between two attempts to reach the broker.
    """

    state_dir: Path
    device: str
    aggregator: str = ""
    token_file: Path | None = None
    data: Path | None = None
    classes: tuple[str, ...] | None = None
    budget_j_per_day: float = 0.0
    inferences_per_day: int = 1000
    max_latency_ms: float = 0.0
    threads: int = 1
    quiet_hours: QuietHours | None = None
    max_temperature_c: float = 80.0
    min_battery_percent: float = 20.0
    trainer_memory_bytes: int = 0
    trainer_threads: int = 1
    trainer_linger_s: float = 60.0
    outbox_quota_bytes: int = GIGABYTE
    meter: str = AUTO
    max_backoff_s: float = CAP_S

    @property
    def token_path(self) -> Path:
        """Where the join token is looked for."""
        return self.token_file or self.state_dir / "token"

    @property
    def trainer_limits(self) -> TrainerLimits:
        """What training may take."""
        return TrainerLimits(
            memory_bytes=self.trainer_memory_bytes, threads=self.trainer_threads, linger_s=self.trainer_linger_s
        )


def read_config(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The settings of `path`, with those of `overrides` that are not None instead.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong.
    """
    values = _read_toml(path) if path is not None else {}
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    if "token" in values:
        raise ConfigError(
            "token: expected in a file of its own (token_file), so that it can be erased once it was used"
        )
    defaults: dict[str, Any] = {"state_dir": default_state_dir(), "device": default_device()}
    return Config(**defaults | {key: _checked(key, value) for key, value in values.items()})


def default_state_dir() -> Path:
    """In the home of the user the agent runs as."""
    return Path.home() / ".local" / "state" / "bitfleet-edge"


def default_device(hostname: str | None = None) -> str:
    """The host's name, as far as a device may be called so."""
    name = re.sub(r"[^a-z0-9]+", "-", (hostname or socket.gethostname()).lower()).strip("-")[:64]
    try:
        return check_name(name, "device")
    except LocalProtocolError:
        return "device"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path}: not TOML: {error}") from error


def _checked(key: str, value: Any) -> Any:
    if key not in _CHECKS:
        near = difflib.get_close_matches(key, _CHECKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(_CHECKS)}"
        raise ConfigError(f"{key}: no such setting; {hint}")
    try:
        return _CHECKS[key](value)
    except (ValueError, LocalProtocolError) as error:
        shown = without_login(value) if isinstance(value, str) else value
        raise ConfigError(f"{key} = {shown!r}: {error}") from error


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("expected a path")
    return Path(value).expanduser().absolute()


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, list | tuple) else ()
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("expected a list of two or more different names")
    return names


def _device(value: Any) -> str:
    return check_name(str(value), "device")


def _url(value: Any) -> str:
    parts = urlsplit(str(value))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected a URL like http://10.0.0.2:8700")
    return str(value).rstrip("/")


def _meter(value: Any) -> str:
    parse_meter(str(value))
    return str(value)


def _quiet_hours(value: Any) -> QuietHours:
    return QuietHours.parse(str(value))


def _real(low: float, high: float, unit: str) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"expected a number in {unit}")
        if not low <= value <= high:
            raise ValueError(f"expected {low:g} to {high:g} {unit}")
        return float(value)

    return check


def _integer(low: int, high: int, unit: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high} {unit}")
        return value

    return check


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "state_dir": _path,
    "device": _device,
    "aggregator": _url,
    "token_file": _path,
    "data": _path,
    "classes": _names,
    "budget_j_per_day": _real(0, 1e12, "J/day"),
    "inferences_per_day": _integer(0, 1 << 40, "a day"),
    "max_latency_ms": _real(0, 1e9, "ms"),
    "threads": _integer(1, 256, "threads"),
    "quiet_hours": _quiet_hours,
    "max_temperature_c": _real(20, 150, "°C"),
    "min_battery_percent": _real(0, 100, "%"),
    "trainer_memory_bytes": _integer(0, 1 << 50, "bytes"),
    "trainer_threads": _integer(1, 256, "threads"),
    "trainer_linger_s": _real(0, 86_400, "s"),
    "outbox_quota_bytes": _integer(1 << 20, 1 << 50, "bytes"),
    "meter": _meter,
    "max_backoff_s": _real(1, 86_400, "s"),
}
assert set(_CHECKS) == {item.name for item in fields(Config)}
