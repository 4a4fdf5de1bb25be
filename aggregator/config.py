"""The aggregator's settings: read once, from defaults, a TOML file, the environment and the command line.

Later sources win. A wrong value stops the program with the key, the value and what was expected.

    fleet = "greenhouse"
    start = "weights.bf"                 # from bitfleet-export adopt; leave out to start from nothing
    state_dir = "/var/lib/bitfleet"
    http_host = "0.0.0.0"

    [job]
    preset = "oqfl"                      # settings of a published system; what is given besides replaces them
    architecture = "resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"
    rounds = 20
    precisions = ["W8A8", "W4A8", "W1A8"]

    [jobs.night]                         # another job beside it, for the devices of some groups
    architecture = "cnn4:width=0.5,input=1x28x28,classes=10"
    groups = ["cellar"]
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from aggregator import logs
from aggregator.authority import DEVICE_DAYS
from aggregator.broker import AUTO, EMBEDDED, MOSQUITTO, BrokerUrl
from aggregator.job import Job
from aggregator.presets import PRESETS
from aggregator.room import MANUAL
from aggregator.space import KEEP_FREE_MB
from aggregator.start import StartError, architecture_of
from aggregator.store import MAIN
from protocol.errors import ProtocolError
from protocol.precision import Precision
from protocol.topics import check_name

ON: Final = "on"
OFF: Final = "off"
FLEET: Final = "fleet"
SYSTEM: Final = "system"
LONGEST_DAYS: Final = 3650
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
ENVIRONMENT: Final = {
    "BITFLEET_STATE": "state_dir",
    "BITFLEET_FLEET": "fleet",
    "BITFLEET_BROKER": "broker",
    "BITFLEET_HTTP_HOST": "http_host",
    "BITFLEET_HTTP_PORT": "http_port",
    "BITFLEET_LOG_FORMAT": "log_format",
}
"""The variables that are read, and the keys they set."""


EXAMPLE_NETWORK: Final = "resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"


class ConfigError(Exception):
    """A setting is wrong; the message names key, value and what was expected."""


def default_state_dir() -> Path:
    """Where an installation without settings keeps its truth."""
    return Path.home() / ".local" / "state" / "bitfleet"


@dataclass(frozen=True, slots=True)
class Beside:
    """A job beside the main one, with hold-out and start of its own."""

    job: Job
    holdout: Path | None = None
    start: Path | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be chosen. Ports of 0 mean any free one, which is then kept."""

    job: Job
    jobs: Mapping[str, Beside] = field(default_factory=dict)
    """What else the fleet learns, by name."""
    state_dir: Path = field(default_factory=default_state_dir)
    fleet: str = "bitfleet"
    http_host: str = "127.0.0.1"
    http_port: int = 8700
    broker: str = AUTO
    broker_host: str = "127.0.0.1"
    broker_port: int | None = None
    """For a broker of its own; 1883 if not given, 8883 with TLS."""
    keep_free_mb: int = KEEP_FREE_MB
    """Megabytes that must be free on the disk before a round is opened; 0 for none."""
    advertise_broker: str = ""
    """The broker's URL as devices reach it, when that differs from how the aggregator does."""
    page: bool = True
    """Whether the web page is served beside the API."""
    home_assistant: str = ""
    """The discovery prefix of a Home Assistant on the same broker, usually homeassistant; empty for none."""
    log_format: str = logs.TEXT
    """How the log is written: text for people, json for programs."""
    broker_trust: str = ""
    """Who certifies a broker that is named by a URL mqtts://…: `fleet`, its own authority, or `system`."""
    tls: str = AUTO
    """`on`, `off`, or `auto`: on as soon as other machines can reach this one."""
    names: tuple[str, ...] = ()
    """Host names and addresses that certificates of HTTP and broker are made out to, beside those of this machine."""
    certificate_days: float = DEVICE_DAYS
    """How long a device's certificate is good; it asks for the next at half time."""
    approve: str = AUTO
    """`auto` takes in every device that shows a good token, `manual` has an operator approve it first."""
    holdout: Path | None = None
    """Held-out pictures: an .npz with `pictures` uint8[N, C, H, W] and `labels` int[N]."""
    start: Path | None = None
    """Weights file that an empty state folder's first model is made of; the job's architecture may then be left out."""

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            try:
                check(value)
            except (ValueError, ProtocolError) as error:
                raise ConfigError(f"{name} = {value!r}: {error}") from error

        _check_groups(self)

    @property
    def own_broker(self) -> bool:
        """Whether the broker is a child of this process."""
        return "://" not in self.broker

    @property
    def guarded(self) -> bool:
        """Whether the fleet has an authority, HTTP and the broker speak TLS, and devices need certificates."""
        if self.tls == AUTO:
            return not self.loopback_only or (self.own_broker and self.broker_host not in LOOPBACK)
        return self.tls == ON

    @property
    def trusts_fleet(self) -> bool:
        """Whether the fleet's authority certifies the broker."""
        return self.guarded and (self.own_broker or self.broker_trust == FLEET)

    @property
    def loopback_only(self) -> bool:
        """Whether the HTTP door can be reached from this machine only; reads then need no token."""
        return self.http_host in LOOPBACK


def load(
    path: Path | None = None,
    *,
    environment: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The settings of this run.

    Args:
        path: a TOML file, or None.
        environment: the process's variables; those named in `ENVIRONMENT` are read.
        overrides: values from the command line, those of the job as a mapping under `job`; None means not given.

    Raises:
        ConfigError: a file cannot be read, a key is unknown or a value is wrong.
    """
    table = _read(path) if path else {}
    job = table.pop("job", {})
    if not isinstance(job, dict):
        raise ConfigError(f"job = {job!r}: expected a table, written as [job]")
    beside = {name: _beside(name, given) for name, given in _tables(table.pop("jobs", {}), "jobs").items()}
    line = _given(overrides or {})
    values = _typed(Config, table, "") | _from_environment(environment) | line
    main = _job(job | _given(line.get("job", {})), values.get("start"), "job.")
    return Config(**values | {"job": main, "jobs": beside})


def _tables(given: object, key: str) -> dict[str, dict[str, Any]]:
    tables = given if isinstance(given, dict) else {}
    if tables != given or not all(isinstance(each, dict) for each in tables.values()):
        raise ConfigError(f"{key} = {given!r}: expected tables, written as [{key}.NAME]")
    return tables


def _beside(name: str, given: dict[str, Any]) -> Beside:
    prefix = f"jobs.{name}."
    own = _typed(Beside, {key: given.pop(key) for key in ("holdout", "start") if key in given}, prefix)
    return Beside(_job(given, own.get("start"), prefix), **own)


def _check_groups(config: Config) -> None:
    """That every job beside the main one asks for groups, and no two for the same."""
    if config.job.groups:
        raise ConfigError(f"job.groups = {list(config.job.groups)}: expected none, the main job has all other devices")
    taken: dict[str, str] = {}
    for name, beside in config.jobs.items():
        try:
            check_name(name, "job")
        except ProtocolError as error:
            raise ConfigError(f"jobs.{name}: {error}") from error
        if name == MAIN:
            raise ConfigError(f"jobs.{name}: expected another name, {MAIN} is what [job] describes")
        if not beside.job.groups:
            raise ConfigError(f"jobs.{name}.groups is missing: expected the groups of devices that work for it")
        for group in beside.job.groups:
            if taken.setdefault(group, name) != name:
                raise ConfigError(f"jobs.{name}.groups: {group!r} works for job {taken[group]} already")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path}: not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    hints = get_type_hints(Config)
    return {
        name: _from_text(environment[variable], hints[name], variable)
        for variable, name in ENVIRONMENT.items()
        if variable in environment
    }


def _job(given: dict[str, Any], start: Path | None, prefix: str) -> Job:
    table = _preset(given.pop("preset", None), prefix) | given
    if "architecture" not in table and start is not None:
        table["architecture"] = _started(start)
    if "architecture" not in table:
        raise ConfigError(
            f"{prefix}architecture is missing: expected a network, for example {EXAMPLE_NETWORK!r};"
            f" give --architecture or write it under [{prefix.rstrip('.')}], or --start a file that has one"
        )
    values = _typed(Job, table, prefix)
    try:
        return Job(**values)
    except (ValueError, ProtocolError) as error:
        raise ConfigError(f"[{prefix.rstrip('.')}]: {error}") from error


def _started(start: Path) -> str:
    try:
        return architecture_of(start)
    except StartError as error:
        raise ConfigError(f"{error}; with --architecture a fleet that has begun needs the file no more") from error


def _preset(name: object, prefix: str) -> dict[str, Any]:
    if name is None:
        return {}
    if name not in PRESETS:
        raise ConfigError(f"{prefix}preset = {name!r}: expected one of {', '.join(PRESETS)}")
    return PRESETS[str(name)].job


def _typed(cls: type[Any], table: dict[str, Any], prefix: str) -> dict[str, Any]:
    hints = get_type_hints(cls)
    known = [item.name for item in fields(cls)]
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(sorted(known))}"
            raise ConfigError(f"{prefix}{key} = {value!r}: unknown key; {hint}")
    return {key: _convert(value, hints[key], prefix + key) for key, value in table.items()}


def _convert(value: Any, hint: Any, key: str) -> Any:
    """A TOML value as the field's type."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        item, *_ = get_args(hint)
        if isinstance(value, list):
            return tuple(_convert(one, item, f"{key}[{index}]") for index, one in enumerate(value))
    elif hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    elif hint is Precision and isinstance(value, str):
        try:
            return Precision.parse(value)
        except ProtocolError as error:
            raise ConfigError(f"{key} = {value!r}: {error}") from error
    elif hint is float and type(value) in {int, float}:
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f"{key} = {value!r}: expected {_in_words(hint)}")


def _from_text(text: str, hint: Any, variable: str) -> Any:
    hint = _without_none(hint)
    if hint is int:
        try:
            return int(text)
        except ValueError as error:
            raise ConfigError(f"{variable} = {text!r}: expected {_in_words(hint)}") from error
    return _convert(text, hint, variable)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) is UnionType:
        return next(part for part in get_args(hint) if part is not NoneType)
    return hint


def _in_words(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"a list, each item {_in_words(get_args(hint)[0])}"
    return _WORDS.get(hint, str(hint))


def _check_port(value: int | None) -> None:
    if value is not None and not 0 <= value <= 65535:
        raise ValueError("expected a port from 1 to 65535, or 0 for any free one")


def _check_host(value: str) -> None:
    if not value or any(character in value for character in "/@ "):
        raise ValueError("expected an address of this machine, for example 127.0.0.1 or 0.0.0.0")


def _check_broker(value: str) -> None:
    if value not in {AUTO, MOSQUITTO, EMBEDDED}:
        try:
            BrokerUrl.parse(value)
        except ValueError as error:
            raise ValueError("expected auto, mosquitto, embedded, mqtt://host:port or mqtts://host:port") from error


def _check_prefix(value: str) -> None:
    if value and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}", value):
        raise ValueError("expected a topic without wildcards, for example homeassistant")


def _one_of(*words: str) -> Callable[[str], object]:
    def check(value: str) -> None:
        if value not in words:
            raise ValueError(f"expected {' or '.join(word or 'nothing' for word in words)}")

    return check


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError as error:
            if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name) is None:
                raise ValueError(
                    "expected host names and addresses, for example fleet.example.org or 10.0.0.2"
                ) from error


def _check_days(days: float) -> None:
    if not 0 < days <= LONGEST_DAYS:
        raise ValueError(f"expected more than 0 days, and {LONGEST_DAYS} at most")


def _check_advertised(value: str) -> None:
    if value:
        BrokerUrl.parse(value)


def _check_space(value: int) -> None:
    if value < 0:
        raise ValueError("expected megabytes, or 0 for none")


_WORDS: Final[dict[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path as text",
    Precision: "fp32 or WxAy",
}
_CHECKS: Final[dict[str, Callable[[Any], object]]] = {
    "fleet": lambda value: check_name(value, "fleet"),
    "http_host": _check_host,
    "http_port": _check_port,
    "broker": _check_broker,
    "broker_host": _check_host,
    "broker_port": _check_port,
    "advertise_broker": _check_advertised,
    "keep_free_mb": _check_space,
    "broker_trust": _one_of("", FLEET, SYSTEM),
    "tls": _one_of(AUTO, ON, OFF),
    "names": _check_names,
    "certificate_days": _check_days,
    "approve": _one_of(AUTO, MANUAL),
    "log_format": _one_of(*logs.FORMATS),
    "home_assistant": _check_prefix,
}
