"""Topic names: who says what where. Root `bitfleet/v1/<fleet>`; one builder and one parser.

    srv/state, srv/round, …/<job>     aggregator → all, retained
    d/<id>/state, d/<id>/birth        device → aggregator, retained
    d/<id>/tele, d/<id>/rsp/<task>    device → aggregator
    d/<id>/offer, d/<id>/rx/<task>    aggregator → device
    up/<shard>/<id>/<task>/m, …/c/<n> device → aggregator: manifest, chunk n
    model/<width>/<digest>/<n>        aggregator → all devices of a width: chunk n of a blob

The upload names a shard instead of using `$share`: shared subscriptions scatter the chunks of one upload over all
workers, and some brokers have none.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocol.envelope import AGGREGATOR
from protocol.errors import LocalProtocolError, Malformed
from protocol.messages import MAX_CHUNKS

_SEGMENT = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)
_RESERVED: Final = frozenset({AGGREGATOR})


def check_name(name: str, what: str) -> str:
    """`name` itself, if it is a legal device or fleet name.

    Raises:
        LocalProtocolError: it is not `[a-z0-9-]{1,64}`, or is reserved.
    """
    if _SEGMENT.fullmatch(name) is None or name in _RESERVED:
        raise LocalProtocolError(f"{what} {name!r}: expected 1 to 64 of a-z, 0-9 and -, and not {AGGREGATOR!r}")
    return name


class Door(StrEnum):
    """The device-to-aggregator topics, by their last fixed segment."""

    STATE = "state"
    BIRTH = "birth"
    TELEMETRY = "tele"
    RESPONSE = "rsp"
    MANIFEST = "m"
    CHUNK = "c"


@dataclass(frozen=True, slots=True)
class Upward:
    """A parsed device-to-aggregator topic. `task` and `chunk` are empty and 0 where the door has none."""

    door: Door
    device: str
    task: str = ""
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one fleet.

    Raises:
        LocalProtocolError: the fleet's name is not a legal segment.
    """

    fleet: str

    def __post_init__(self) -> None:
        check_name(self.fleet, "fleet")

    @property
    def root(self) -> str:
        """Everything of the fleet lies below."""
        return f"bitfleet/v1/{self.fleet}"

    @property
    def server_state(self) -> str:
        """Retained `ServerState`."""
        return f"{self.root}/srv/state"

    def round_state(self, job: str = "") -> str:
        """Retained `RoundState` of a job; the main one has no name."""
        return f"{self.root}/srv/round/{check_name(job, 'job')}" if job else f"{self.root}/srv/round"

    def device(self, device: str, leaf: str) -> str:
        """`d/<id>/<leaf>`, for state, birth, tele and offer."""
        return f"{self.root}/d/{device}/{leaf}"

    def response(self, device: str, task: str) -> str:
        """Where a device declines."""
        return f"{self.root}/d/{device}/rsp/{task}"

    def receipt(self, device: str, task: str) -> str:
        """Where `Need` and `Receipt` arrive."""
        return f"{self.root}/d/{device}/rx/{task}"

    def manifest(self, shard: str, device: str, task: str) -> str:
        """Where the manifest goes."""
        return f"{self.root}/up/{shard}/{device}/{task}/m"

    def chunk(self, shard: str, device: str, task: str, number: int) -> str:
        """Where chunk `number` goes."""
        return f"{self.root}/up/{shard}/{device}/{task}/c/{number}"

    def model(self, precision: str, digest: bytes, number: int) -> str:
        """Where chunk `number` of a blob goes that all devices with offers for `precision` need."""
        return f"{self._width(precision)}/{digest.hex()}/{number}"

    def models(self, precision: str) -> str:
        """What a device with offers for `precision` listens to."""
        return f"{self._width(precision)}/+/+"

    def _width(self, precision: str) -> str:
        return f"{self.root}/model/{precision.lower().replace('+', '-')}"

    def parse_model(self, topic: str) -> tuple[bytes, int] | None:
        """Digest and chunk number in a topic of `model`; None if it is another.

        Raises:
            Malformed: it is spoiled.
        """
        if not topic.startswith(f"{self.root}/model/"):
            return None
        match topic.removeprefix(f"{self.root}/model/").split("/"):
            case [_, digest, number] if _DIGEST.fullmatch(digest) and _NUMBER.fullmatch(number):
                return bytes.fromhex(digest), _numbered(int(number))
        raise Malformed(f"topic {topic[:120]!r}: expected model/<width>/<digest>/<n>")

    def subscriptions_of_device(self, device: str) -> tuple[str, ...]:
        """What an agent listens to."""
        rounds = (self.round_state(), f"{self.root}/srv/round/+")
        return (self.server_state, *rounds, self.device(device, "offer"), f"{self.root}/d/{device}/rx/+")

    def subscriptions_of_aggregator(self, shard: str) -> tuple[str, ...]:
        """What the worker of a shard listens to."""
        leaves = ("state", "birth", "tele", "rsp/+")
        return (*(f"{self.root}/d/+/{leaf}" for leaf in leaves), f"{self.root}/up/{shard}/#")

    def parse_upward(self, topic: str) -> Upward:
        """Read a device-to-aggregator topic.

        Raises:
            Malformed: it is none.
        """
        parts = topic.removeprefix(f"{self.root}/").split("/")
        match parts if topic.startswith(f"{self.root}/") else []:
            case ["d", device, "state" | "birth" | "tele" as leaf]:
                return Upward(Door(leaf), _named(device))
            case ["d", device, "rsp", task]:
                return Upward(Door.RESPONSE, _named(device), _named(task))
            case ["up", _, device, task, "m"]:
                return Upward(Door.MANIFEST, _named(device), _named(task))
            case ["up", _, device, task, "c", number] if _NUMBER.fullmatch(number):
                return Upward(Door.CHUNK, _named(device), _named(task), _numbered(int(number)))
        raise Malformed(f"topic {topic[:120]!r}: not one a device publishes to")


def _named(segment: str) -> str:
    if _SEGMENT.fullmatch(segment) is None or segment in _RESERVED:
        raise Malformed(f"topic segment {segment[:64]!r}: expected 1 to 64 of a-z, 0-9 and -")
    return segment


def _numbered(number: int) -> int:
    if number >= MAX_CHUNKS:
        raise Malformed(f"chunk {number}: expected below {MAX_CHUNKS}")
    return number
