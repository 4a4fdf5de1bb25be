"""What can be said on the wire: one frozen dataclass a message, with its type number, keys and bounds.

Numbers and keys are wire format: never reuse one, add new fields with a default. Times are durations in seconds,
never a peer's clock; energy is in millijoules and says where it came from.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from protocol.errors import Refusal
from protocol.schema import Blob, Choice, Flag, Int, Real, Record, Sequence, Text, key

DIGEST = Blob(32)
"""SHA-256 of the bytes meant; empty for "none yet"."""
TASK = Text(32)
NAME = Text(64)
REASON = Text(400)
COUNT = Int(0, 1 << 40)
SECONDS = Real(0, 1e9)
ENERGY = Real(0, 1e15)
ROUND = Int(0, 1 << 31)
MAX_CHUNKS: Final = 1 << 14
"""64 kB chunks of the largest payload allowed, 1 GiB."""
MAX_PAYLOAD_BYTES: Final = 1 << 30
MAX_CODEC_STEPS: Final = 256
"""Weight tensors of the largest network, several times over."""
MAX_STEPS: Final = 32
"""In an offer. One of 32 rounds ago rarely is less to fetch than the whole model."""


class EnergySource(StrEnum):
    """How an energy figure was obtained. Records never mix the two silently."""

    MEASURED = "measured"
    MODELLED = "modelled"


class Purpose(StrEnum):
    """What energy was spent on. Wire format: only add."""

    UP = "up"
    DOWN = "down"
    TRAINING = "training"
    INFERENCE = "inference"
    IDLE = "idle"


class Status(StrEnum):
    """Whether a device can be asked to work."""

    ONLINE = "online"
    OFFLINE = "offline"
    SLEEPING = "sleeping"
    THROTTLED = "throttled"
    SAFE_MODE = "safe-mode"


class Outcome(StrEnum):
    """The final word on an update."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Cost:
    """Latency and energy of one inference at one precision, as the device knows them."""

    precision: str = key(1, Text(16))
    latency_ms: float = key(2, Real(0, 1e9))
    energy_mj: float = key(3, ENERGY)
    source: EnergySource = key(4, Choice(EnergySource))


@dataclass(frozen=True, slots=True)
class Spent:
    """Energy of one purpose, and how it was obtained."""

    purpose: Purpose = key(1, Choice(Purpose))
    energy_mj: float = key(2, ENERGY)
    source: EnergySource = key(3, Choice(EnergySource))


@dataclass(frozen=True, slots=True)
class State:
    """Device → aggregator, retained, also its last will. A lower `session` than one seen is a stale will."""

    status: Status = key(1, Choice(Status))
    session: int = key(2, COUNT)


@dataclass(frozen=True, slots=True)
class Birth:
    """Device → aggregator, retained, on every connect: what it is and can do.

    `max_latency_ms` is the longest an inference may take, 0 for any time.
    """

    session: int = key(1, COUNT)
    version: str = key(2, Text(32))
    processor: str = key(3, Text(128))
    cores: int = key(4, Int(1, 4096))
    memory_bytes: int = key(5, Int(0, 1 << 50))
    trains: bool = key(6, Flag())
    codecs: tuple[str, ...] = key(7, Sequence(Text(64), 64))
    precisions: tuple[str, ...] = key(8, Sequence(Text(16), 64))
    meters: tuple[str, ...] = key(9, Sequence(Text(64), 16))
    samples: int = key(10, COUNT)
    budget_j_per_day: float = key(11, Real(0, 1e12))
    inferences_per_day: int = key(12, COUNT)
    model_digest: bytes = key(13, DIGEST)
    costs: tuple[Cost, ...] = key(14, Sequence(Record(Cost), 64))
    packet_bytes: int = key(15, Int(1024, 1 << 28))
    max_latency_ms: float = key(16, Real(0, 1e9), default=0.0)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Device → aggregator, QoS 0: how far it is. `lifecycle` is the agent's state, `task` empty when idle."""

    lifecycle: str = key(1, Text(24))
    task: str = key(2, TASK)
    progress: float = key(3, Real(0, 1))
    sent_bytes: int = key(4, COUNT)
    received_bytes: int = key(5, COUNT)
    model_version: int = key(6, ROUND)
    latency_p50_ms: float = key(7, Real(0, 1e9))
    note: str = key(8, REASON, default="")


@dataclass(frozen=True, slots=True)
class ServerState:
    """Aggregator → all, retained, also its last will: devices hold uploads while it is offline."""

    online: bool = key(1, Flag())
    fleet: str = key(2, NAME)


@dataclass(frozen=True, slots=True)
class RoundState:
    """Aggregator → all, retained: where a job of the fleet stands; the main one has no name."""

    round: int = key(1, ROUND)
    phase: str = key(2, Text(16))
    model_version: int = key(3, ROUND)
    job: str = key(4, Text(64), default="")


@dataclass(frozen=True, slots=True)
class Step:
    """From one state of the base model to the next (`reference`); `before` is empty where none is needed."""

    before: bytes = key(1, DIGEST)
    digest: bytes = key(2, DIGEST)
    payload_bytes: int = key(3, Int(1, MAX_PAYLOAD_BYTES))


@dataclass(frozen=True, slots=True)
class Offer:
    """Aggregator → one device: train this model on your pictures and send the update this way.

    `precision` is one, or several joined by `+` for a method that trains several. `epochs` 0 asks for their profiles
    only: moments and activation steps. `table` is the digest of the architecture's table, empty if the aggregator
    tells none. `nonce` comes back in the manifest and binds the update to this offer.
    `deadline_s` counts from the moment the offer arrives, so that the device's clock does not matter. `codec_seed` is
    the same for all devices of a round and goes into the payload's header; so are `codec_steps`, one for each weight
    tensor, which the recipe `stosign` takes for its own. `steps` lead to the base from earlier ones; whoever holds one
    of these may take them instead of the whole. With `broadcast`, `newest` is published to all devices of this
    `precision` as soon as every offer is out. `job` is told apart by its name where a fleet has several; rounds are
    counted within one.
    """

    task: str = key(1, TASK)
    round: int = key(2, ROUND)
    architecture: str = key(3, Text(128))
    precision: str = key(4, Text(64))
    recipe: str = key(5, Text(64))
    base: bytes = key(6, DIGEST)
    base_bytes: int = key(7, Int(1, MAX_PAYLOAD_BYTES))
    shard: str = key(8, Text(32))
    nonce: bytes = key(9, Blob(16))
    deadline_s: float = key(10, SECONDS)
    epochs: int = key(11, Int(0, 1000))
    batch: int = key(12, Int(1, 4096))
    learning_rate: float = key(13, Real(0, 10))
    seed: int = key(14, Int(0, (1 << 63) - 1))
    calibrate_steps: bool = key(15, Flag(), default=False)
    method: str = key(16, Text(48), default="oqfl")
    table: bytes = key(17, DIGEST, default=b"")
    codec_seed: int = key(18, Int(0, (1 << 32) - 1), default=0)
    steps: tuple[Step, ...] = key(19, Sequence(Record(Step), MAX_STEPS), default=())
    broadcast: bool = key(20, Flag(), default=False)
    codec_steps: tuple[float, ...] = key(21, Sequence(Real(0, 1e30), MAX_CODEC_STEPS), default=())
    job: str = key(22, Text(64), default="")

    @property
    def newest(self) -> Step:
        """What every device of the round needs: the last step, or the base itself where there are none."""
        return self.steps[-1] if self.steps else Step(b"", self.base, self.base_bytes)


class DeclineReason(StrEnum):
    """Why a device will not take an offer. Wire format: only add."""

    BUSY = "busy"
    SLEEPING = "sleeping"
    THROTTLED = "throttled"
    SAFE_MODE = "safe-mode"
    NO_DATA = "no-data"
    NO_TRAINER = "no-trainer"
    TRAINING_FAILED = "training-failed"
    UNSUPPORTED = "unsupported"
    NO_SPACE = "no-space"
    DOWNLOAD_FAILED = "download-failed"


@dataclass(frozen=True, slots=True)
class Decline:
    """Device → aggregator: not this time, because; ask again after `retry_after_s`."""

    task: str = key(1, TASK)
    reason: DeclineReason = key(2, Choice(DeclineReason))
    detail: str = key(3, REASON)
    retry_after_s: float = key(4, SECONDS)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Device → aggregator, before the chunks and again whenever no answer came: what is being uploaded.

    `energy_mj` is that of this training alone. `fetched_bytes` came over HTTP since the last update, broadcasts not
    counted. `spent` is what else the device spent since then: on inference, on training that came to nothing, on being
    idle; each purpose at most once, and left out where nothing is known of it.
    """

    task: str = key(1, TASK)
    nonce: bytes = key(2, Blob(16))
    round: int = key(3, ROUND)
    base: bytes = key(4, DIGEST)
    digest: bytes = key(5, DIGEST)
    payload_bytes: int = key(6, Int(1, MAX_PAYLOAD_BYTES))
    chunk_bytes: int = key(7, Int(1, 1 << 28))
    samples: int = key(8, Int(1, 1 << 32))
    loss: float = key(9, Real(0, 1e9))
    accuracy: float = key(10, Real(0, 1))
    train_s: float = key(11, SECONDS)
    energy_mj: float = key(12, ENERGY)
    energy_source: EnergySource = key(13, Choice(EnergySource))
    fetched_bytes: int = key(14, COUNT, default=0)
    spent: tuple[Spent, ...] = key(15, Sequence(Record(Spent), 8), default=())


@dataclass(frozen=True, slots=True)
class Need:
    """Aggregator → device: the chunks still missing, as a bitmap (bit n of byte ⌊n/8⌋, lowest first)."""

    task: str = key(1, TASK)
    missing: bytes = key(2, Blob(MAX_CHUNKS // 8))


@dataclass(frozen=True, slots=True)
class Receipt:
    """Aggregator → device, signed: the final word. Only this removes an update from the outbox."""

    task: str = key(1, TASK)
    round: int = key(2, ROUND)
    digest: bytes = key(3, DIGEST)
    outcome: Outcome = key(4, Choice(Outcome))
    refusal: str = key(5, Text(32), default="")
    reason: str = key(6, REASON, default="")

    @property
    def code(self) -> Refusal | None:
        """The refusal, if this version knows its code."""
        return Refusal(self.refusal) if self.refusal in set(Refusal) else None


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """Aggregator → one device: the model it should run now, at the precision its budget allows, and why."""

    version: int = key(1, ROUND)
    architecture: str = key(2, Text(128))
    precision: str = key(3, Text(16))
    digest: bytes = key(4, DIGEST)
    model_bytes: int = key(5, Int(1, MAX_PAYLOAD_BYTES))
    reason: str = key(6, REASON)


Message = (
    State | Birth | Telemetry | ServerState | RoundState | Offer | Decline | Manifest | Need | Receipt | ModelOffer
)

TYPES: Final[dict[int, type[Any]]] = {
    1: State,
    2: Birth,
    3: Telemetry,
    4: ServerState,
    5: RoundState,
    6: Offer,
    7: Decline,
    8: Manifest,
    9: Need,
    10: Receipt,
    11: ModelOffer,
}
"""Type numbers of the envelope. A new message is a new row."""

NUMBERS: Final[dict[type[Any], int]] = {cls: number for number, cls in TYPES.items()}

GUARDED_BY_SESSION: Final[frozenset[type[Any]]] = frozenset({State, Birth, ServerState, RoundState})
"""Retained messages and wills arrive again and out of order by design; the newest session or boot wins."""
