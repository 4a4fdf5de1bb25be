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


def lowered(
    setup: Setup, model: GlobalModel, chain: Chain, number: int, devices: Sequence[int]
) -> tuple[bytes, Chain, int]:
    """The base model of round `number`, the chain after it, and the bytes that `devices` fetch."""
    downlink = Downlink.parse(setup.downlink)
    if not downlink.by_steps:
        base = whole(setup, model, setup.precisions, number)
        return base, chain, len(base) * len(devices)
    seed = _seed(setup, setup.precisions, number)
    payload, state = next_step(model, setup.precisions, chain.state or None, downlink.recipe, seed)
    before, name = sha256(chain.state).digest() if chain.state else b"", sha256(state).digest()
    steps = (*chain.steps, Step(before, sha256(payload).digest(), len(payload)))[-MAX_STEPS:]
    fetched = 0
    for device in devices:
        way = cheapest(steps, name, len(state), {chain.held.get(device, b"")})
        fetched += len(state) if way is None else length(way)
    return state, Chain(state, steps, {**chain.held, **dict.fromkeys(devices, name)}), fetched


def whole(setup: Setup, model: GlobalModel, precisions: Sequence[Precision], number: int) -> bytes:
    """The model itself, for those who train from no state or measure it."""
    recipe = str(Downlink.parse(setup.downlink).whole.recipe)
    return base_payload(model, precisions, recipe, _seed(setup, precisions, number))


def _seed(setup: Setup, precisions: Sequence[Precision], number: int) -> int:
    return seed_of(setup.seed, number, f"base {join(precisions)}")
