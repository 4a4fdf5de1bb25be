"""How many bits a round takes in each direction: what a policy sees, what it decides, and how it is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Final, Protocol

import numpy as np

from aggregator.model import GlobalModel
from protocol.architecture import Role
from protocol.codec.payload import CodedPayload
from protocol.codec.recipe import Recipe
from protocol.precision import FP32, Float32

FINEST: Final = 1e-8
COARSEST: Final = 10.0
"""Steps that a recipe can spell."""


class BudgetError(ValueError):
    """No widths fit a budget; the message names it and the smallest that works."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the values of one weight tensor reach.

    Attributes:
        size: how many they are.
        reach: largest less smallest; of an update twice its largest magnitude, which is what a payload tells.
        rms: root of their mean square.
    """

    size: int
    reach: float
    rms: float


Spreads = tuple[Spread, ...]
"""One for each weight tensor, in wire order."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Joules of communication in one round.

    Attributes:
        up_j_per_byte: for a byte from each device that takes part: the sum over them.
        most_up_j_per_byte: the same with the devices of the fleet that are farthest.
        down_j_per_byte: for a byte to all of them at once.
        most_down_j_per_byte: the same where the farthest device of the fleet is among them.
    """

    up_j_per_byte: float
    most_up_j_per_byte: float
    down_j_per_byte: float
    most_down_j_per_byte: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to decide from, before a round.

    Attributes:
        number: of the round, from 1.
        rounds: how many are planned, 0 for ever.
        shares: of the pictures, one for each device that takes part; they sum to 1.
        loss: mean training loss of every round so far, in nats.
        weights: of the model before every round so far, this one included.
        updates: of every round so far, means over its devices.
        spent_j: on all rounds so far.
        last_j: on the last round, up and down.
        last: what was decided for the last round.
        fleet: how many devices there are.
        prices: of this round.
        side_bytes: of an update and of a whole model, for whatever is not weights.
    """

    number: int
    rounds: int
    shares: Sequence[float]
    loss: Sequence[float]
    weights: Sequence[Spreads]
    updates: Sequence[Spreads]
    spent_j: float
    last_j: tuple[float, float]
    last: "Rates | None"
    fleet: int
    prices: Prices
    side_bytes: tuple[int, int]

    @property
    def devices(self) -> int:
        """How many take part."""
        return len(self.shares)

    @property
    def values(self) -> int:
        """Weights of the model."""
        return sum(spread.size for spread in self.weights[-1])

    @property
    def bit_j(self) -> tuple[float, float]:
        """Joules of one bit for every weight, up and down."""
        return self.values / 8 * self.prices.up_j_per_byte, self.values / 8 * self.prices.down_j_per_byte

    def cost_j(self, up: float, down: float) -> float:
        """Joules of this round at so many bits a weight each way."""
        return self._cost_j(self.prices.up_j_per_byte, self.prices.down_j_per_byte, up, down)

    def most_j(self, up: float, down: float) -> float:
        """The same of a round that draws the farthest devices."""
        return self._cost_j(self.prices.most_up_j_per_byte, self.prices.most_down_j_per_byte, up, down)

    def _cost_j(self, up_j_per_byte: float, down_j_per_byte: float, up: float, down: float) -> float:
        up_side, down_side = self.side_bytes
        return up_j_per_byte * (up_side + up * self.values / 8) + down_j_per_byte * (down_side + down * self.values / 8)


@dataclass(frozen=True, slots=True)
class Rates:
    """How one round is coded, and why.

    Attributes:
        up: recipe of every device's update, in the order of `Seen.shares`.
        down: way down (`aggregator.downlink`).
        reason: a sentence for people, with the figures it follows from.
        up_step: where updates take steps, how coarse; for the policy itself to go on from.
    """

    up: tuple[str, ...]
    down: str
    reason: str
    up_step: float = 0.0


class Policy(Protocol):
    """A rule. It keeps nothing: equal sights give equal rates, so that a restart changes nothing."""

    def rates(self, seen: Seen) -> Rates:
        """Decide on a round.

        Raises:
            BudgetError: nothing fits the budget.
        """
        ...


def step_recipe(step: float, coder: str, feedback: str = "") -> str:
    """The recipe of a step, in its usual spelling; steps that a recipe cannot spell are the nearest it can."""
    step = min(COARSEST, max(FINEST, step))
    return str(Recipe.parse(f"{feedback}step:{step:.8f}{coder}"))


def spreads_of_model(model: GlobalModel) -> Spreads:
    """Of the model's weights."""
    specs = (spec for spec in model.network.tensors(FP32) if spec.role is Role.WEIGHT)
    return tuple(_spread(model.shared[spec.name]) for spec in specs)


class Reach:
    """Spreads of a round's updates, one after the other."""

    def __init__(self) -> None:
        self._found: list[Spreads] = []

    def add(self, update: CodedPayload) -> None:
        """One update more; what has no weights does not count."""
        if update.header.layout.weights:
            self._found.append(_spreads_of_update(update))

    @property
    def mean(self) -> Spreads:
        """Of each weight tensor, over the updates; nothing for none."""
        return tuple(
            Spread(parts[0].size, fmean(part.reach for part in parts), fmean(part.rms for part in parts))
            for parts in zip(*self._found, strict=True)
        )


def reach_of(spreads: Spreads) -> float:
    """Reach of all weights as if they were one tensor with the same mean square error at any width."""
    return _weighted((spread.size, spread.reach) for spread in spreads)


def rms_of(spreads: Spreads) -> float:
    """Root mean square of all weights."""
    return _weighted((spread.size, spread.rms) for spread in spreads)


def to_plain(spreads: Spreads) -> list[list[float]]:
    """As a JSON document keeps it."""
    return [[spread.size, spread.reach, spread.rms] for spread in spreads]


def from_plain(rows: Iterable[Sequence[float]]) -> Spreads:
    """Read what `to_plain` wrote."""
    return tuple(Spread(int(size), float(reach), float(rms)) for size, reach, rms in rows)


def _spreads_of_update(update: CodedPayload) -> Spreads:
    weights = update.weights
    found = ((spec.size, weights[spec.name]) for spec in update.header.layout.weights)
    return tuple(Spread(size, 2.0 * coded.peak(), coded.norm() / sqrt(size)) for size, coded in found)


def _spread(values: Float32) -> Spread:
    low, high = float(values.min()), float(values.max())
    return Spread(values.size, high - low, float(np.sqrt(np.square(values, dtype=np.float64).mean())))


def _weighted(pairs: Iterable[tuple[int, float]]) -> float:
    pairs = list(pairs)
    total = sum(size for size, _ in pairs)
    return sqrt(sum(size * value**2 for size, value in pairs) / total) if total else 0.0
