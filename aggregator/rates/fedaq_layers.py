"""`fedaq` with bits for each layer: the same law, whose solution is one step for each direction.

With a term of its own for each layer, weighted by its values and priced by them, the closed form of `water_filling`
gives every layer of a direction the same step Δ, and its bits are what its reach takes: ⌈log2(R/Δ + 1)⌉, which is how
`step:Δ` codes it. Both steps keep the ratio that the Lagrangian gives them,

    Δ_u/Δ_d = √( n·p_u·c_d / (p_d·c_u) )

and are as fine as the budget allows for this round and those to come. How far an update will reach is known only when
it is there: a round may take a little more than planned, which the rounds after it make up for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2, sqrt
from typing import Final

from aggregator.rates.base import BudgetError, Rates, Seen, Spread, Spreads, step_recipe
from aggregator.rates.fedaq import DOWN_COUNTS, budget_left_j, expected, rounds_left
from aggregator.rates.water_filling import HIGHEST

HEAD_BYTES: Final = 9
"""Of each tensor under `step`, codes or none."""
_FINEST: Final = 1e-7
_COARSEST: Final = 10.0
_HALVINGS: Final = 40


@dataclass(frozen=True)
class FedAqLayers:
    """Joint adaptive quantization, layer by layer.

    Attributes:
        round_j: budget in joules for a round, as in `fedaq`.
        coder: `+rc`, or empty.
    """

    round_j: float
    coder: str = ""

    def rates(self, seen: Seen) -> Rates:
        """The finest pair of steps that the budget allows."""
        left_j, left = budget_left_j(self.round_j, seen), rounds_left(seen)
        ratio = sqrt(seen.devices * seen.prices.up_j_per_byte * DOWN_COUNTS / seen.prices.down_j_per_byte)
        rounds = list(_rounds(seen, left))
        fixed_j = left * _fixed_j(seen)
        down = _finest(lambda step: fixed_j + sum(_codes_j(seen, *each, ratio * step, step) for each in rounds), left_j)
        if down is None:
            raise BudgetError(
                f"budget {self.round_j:.4g} J a round: expected above {fixed_j / left:.4g}, what no codes at all take"
            )
        reason = f"steps of {ratio * down:.3g} up and {down:.3g} down: {left_j:.3g} J are left for {left} rounds"
        up_recipe, down_recipe = step_recipe(ratio * down, self.coder), step_recipe(down, self.coder)
        return Rates((up_recipe,) * seen.devices, down_recipe, reason, ratio * down)


def _rounds(seen: Seen, left: int) -> Iterator[tuple[Spreads, Spreads]]:
    """Spreads of updates and weights, expected for each round to come."""
    updates = seen.updates or seen.weights
    for ahead in range(left):
        yield _expected(updates, ahead + 1 if seen.updates else 0), _expected(seen.weights, ahead)


def _expected(history: Sequence[Spreads], ahead: int) -> Spreads:
    rows = zip(*history, strict=True)
    return tuple(Spread(row[-1].size, expected([each.reach for each in row], ahead), row[-1].rms) for row in rows)


def _codes_j(seen: Seen, updates: Spreads, weights: Spreads, up: float, down: float) -> float:
    prices = seen.prices
    return prices.up_j_per_byte * _bytes(updates, up) + prices.down_j_per_byte * _bytes(weights, down)


def _bytes(spreads: Spreads, step: float) -> float:
    return sum(spread.size * bits_of(spread.reach, step) for spread in spreads) / 8


def bits_of(reach: float, step: float) -> int:
    """Bits that `step` takes for a tensor of that reach, at most."""
    return min(HIGHEST, ceil(log2(reach / step + 1)))


def _fixed_j(seen: Seen) -> float:
    """Of a round, whatever the steps."""
    heads = HEAD_BYTES * len(seen.weights[-1])
    return seen.cost_j(0, 0) + heads * (seen.prices.up_j_per_byte + seen.prices.down_j_per_byte)


def _finest(cost_j: Callable[[float], float], budget_j: float) -> float | None:
    """The finest step within the budget, to a millionth; None where even the coarsest takes more."""
    low, high = log2(_FINEST), log2(_COARSEST)
    if cost_j(2.0**high) > budget_j:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost_j(2.0**middle) <= budget_j else (middle, high)
    return 2.0**high
