"""Bits of both directions together, so that a budget of joules errs least over all rounds.

L. Qu, S. Song, C.-Y. Tsui, "FedAQ: Communication-Efficient Federated Edge Learning via Joint Uplink and Downlink
Adaptive Quantization", arXiv 2406.18156. Devices send quantized updates, whose noise is independent and averages out
over n of them; the station sends quantized weights, whose noise all of them share. With reaches R,

    minimize Σ_t  c_u·R_u,t² / (n·(2^b_u,t − 1)²)  +  c_d·R_d,t² / (2^b_d,t − 1)²      within the budget

which `water_filling` solves. Updates shrink as training converges, so their bits fall; weights grow, so theirs rise.
The constants c_u and c_d of the paper's bound are unknown for a real network; of the ratios tried (`DOWN_COUNTS`)
1 takes least energy to a target.

Rounds to come are expected to go on as those before: a reach follows a power of the round's number. Before every round
the rest is solved again with what is left of the budget, and payloads of `uniform` have a length that is known
beforehand, so the budget is never exceeded; an entropy coder only saves some of it, for the rounds that follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final

from aggregator.rates.base import BudgetError, Rates, Seen, Spreads, reach_of
from aggregator.rates.water_filling import LOWEST, Term, whole_bits

HORIZON: Final = 20
"""Rounds that are planned ahead where a job goes on for ever."""
DOWN_COUNTS: Final = 1.0
"""c_d over c_u: on tier F1, seed 0, with 0.15 J a round, 1 takes 1.87 J to fp32 − 1 and 0.1 takes 2.23."""
_STEEPEST: Final = 1.0
"""Exponents of a trend beyond it are noise of the first rounds."""


@dataclass(frozen=True)
class FedAq:
    """Joint adaptive quantization.

    Attributes:
        round_j: budget in joules for a round; rounds may take unlike shares of what all of them have together.
        coder: `+rc`, or empty.
    """

    round_j: float
    coder: str = ""

    def rates(self, seen: Seen) -> Rates:
        """Solve this round and those to come, and take this one's widths."""
        left = rounds_left(seen)
        left_j = budget_left_j(self.round_j, seen)
        terms = [term for round_terms in _terms(seen, left) for term in round_terms]
        spendable_j = left_j - left * seen.cost_j(0, 0)
        reserve_j = (left - 1) * seen.most_j(LOWEST, LOWEST)
        up, down = whole_bits(terms, spendable_j)[:2]
        while (up, down) != (LOWEST, LOWEST) and seen.cost_j(up, down) + reserve_j > left_j:
            up, down = (up - 1, down) if down == LOWEST or up > down else (up, down - 1)
        if seen.cost_j(up, down) + reserve_j > left_j * (1 + 1e-9):
            raise BudgetError(_misfits(self.round_j, seen))
        reason = f"{up} bits up and {down} down: {left_j:.3g} J are left for {left} rounds"
        return Rates((f"uniform:{up}{self.coder}",) * seen.devices, f"uniform:{down}{self.coder}", reason)


def rounds_left(seen: Seen) -> int:
    """Rounds that share what is left, this one included."""
    return seen.rounds - seen.number + 1 if seen.rounds else HORIZON


def budget_left_j(round_j: float, seen: Seen) -> float:
    """Joules for this round and those to come."""
    return round_j * (seen.number - 1 + rounds_left(seen)) - seen.spent_j


def expected(history: Sequence[float], ahead: int) -> float:
    """A quantity `ahead` rounds after the last of `history`, by the power of the round's number that it followed."""
    seen = [(log(number), log(value)) for number, value in enumerate(history, 1) if value > 0]
    if len(seen) < 3:
        return history[-1]
    mean_x, mean_y = (sum(column) / len(seen) for column in zip(*seen, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in seen) / sum((x - mean_x) ** 2 for x, _ in seen)
    slope = min(_STEEPEST, max(-_STEEPEST, slope))
    return history[-1] * exp(slope * log((len(history) + ahead) / len(history)))


def _terms(seen: Seen, left: int) -> Iterator[tuple[Term, Term]]:
    """Of each round to come, up and down. Before anybody sent an update, one is taken to reach as far as weights."""
    ups, downs = _reaches(seen.updates) or _reaches(seen.weights), _reaches(seen.weights)
    up_j, down_j = seen.bit_j
    for ahead in range(left):
        up = Term(expected(ups, ahead + 1 if seen.updates else 0) ** 2 / seen.devices, up_j)
        yield up, Term(DOWN_COUNTS * expected(downs, ahead) ** 2, down_j)


def _reaches(history: Sequence[Spreads]) -> list[float]:
    return [reach_of(spreads) for spreads in history]


def _misfits(round_j: float, seen: Seen) -> str:
    needed = seen.most_j(LOWEST, LOWEST)
    return (
        f"budget {round_j:.4g} J a round, {seen.spent_j:.3g} J spent by round {seen.number}: not enough for"
        f" {LOWEST} bit each way; the smallest that works is {needed:.4g} J a round"
    )
