"""The way down of a simulated round: the bytes that every device would fetch, and what it then trains from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

from aggregator.downlink import Downlink, next_step
from aggregator.model import GlobalModel, base_payload
from protocol.messages import MAX_STEPS, Step
from protocol.precision import Precision, join
from protocol.reference import cheapest, length
from simulation.seeds import seed_of
from simulation.setup import Setup


@dataclass(frozen=True)
class Chain:
    """Where the base model stands, by steps.

    Attributes:
        state: the newest state, empty before the first.
        steps: the last ones that led there.
        held: name of the state that each device fetched last.
    """

    state: bytes = b""
    steps: tuple[Step, ...] = ()
    held: Mapping[int, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values, but for the state."""
        steps = [[step.before.hex(), step.digest.hex(), step.payload_bytes] for step in self.steps]
        return {"steps": steps, "held": {str(device): name.hex() for device, name in self.held.items()}}

    @classmethod
    def from_json(cls, state: bytes, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        steps = tuple(Step(bytes.fromhex(before), bytes.fromhex(digest), n) for before, digest, n in document["steps"])
        return cls(state, steps, {int(device): bytes.fromhex(name) for device, name in document["held"].items()})


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes on the way down.

    Attributes:
        common_bytes: of what every device of the round needs.
        by_device: of all that each fetches, that included.
    """

    common_bytes: int
    by_device: Mapping[int, int]

    @property
    def total_bytes(self) -> int:
        """Of all devices."""
        return sum(self.by_device.values())


def lowered(
    setup: Setup, way: str, model: GlobalModel, chain: Chain, number: int, devices: Sequence[int]
) -> tuple[bytes, Chain, Fetched]:
    """The base model of round `number` by a way down, the chain after it, and the bytes that `devices` fetch."""
    downlink = Downlink.parse(way)
    if not downlink.by_steps:
        base = base_payload(model, setup.precisions, str(downlink.recipe), _seed(setup, setup.precisions, number))
        return base, chain, Fetched(len(base), dict.fromkeys(devices, len(base)))
    seed = _seed(setup, setup.precisions, number)
    payload, state = next_step(model, setup.precisions, chain.state or None, downlink.recipe, seed)
    before, name = sha256(chain.state).digest() if chain.state else b"", sha256(state).digest()
    steps = (*chain.steps, Step(before, sha256(payload).digest(), len(payload)))[-MAX_STEPS:]
    fetched = {}
    for device in devices:
        missed = cheapest(steps, name, len(state), {chain.held.get(device, b"")})
        fetched[device] = len(state) if missed is None else length(missed)
    held = {**chain.held, **dict.fromkeys(devices, name)}
    return state, Chain(state, steps, held), Fetched(len(payload), fetched)


def whole(setup: Setup, model: GlobalModel, precisions: Sequence[Precision], number: int) -> bytes:
    """The model itself, for those who train from no state or measure it."""
    recipe = str(Downlink.parse(setup.downlink).whole.recipe)
    return base_payload(model, precisions, recipe, _seed(setup, precisions, number))


def _seed(setup: Setup, precisions: Sequence[Precision], number: int) -> int:
    return seed_of(setup.seed, number, f"base {join(precisions)}")
