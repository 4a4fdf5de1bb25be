"""Widths that err least together under one budget: reverse water-filling, for real and for whole bits.

L. Qu, S. Song, C.-Y. Tsui, "FedAQ: Communication-Efficient Federated Edge Learning via Joint Uplink and Downlink
Adaptive Quantization", arXiv 2406.18156. Stochastic uniform quantization of values with reach R to b bits errs by at
most R²/4(2ᵇ − 1)², so with weights a ∝ R² and prices p of a bit

    minimize Σ aᵢ/(2^bᵢ − 1)²   subject to   Σ pᵢ·bᵢ ≤ E,   lo ≤ bᵢ ≤ hi

With 2ᵇ − 1 ≈ 2ᵇ and no bound met, setting the derivative of the Lagrangian to zero gives

    bᵢ = ½·log2( 2·ln 2·aᵢ / (λ·pᵢ) )

and the one λ for which the budget is spent exactly; a width beyond its bound is set to it and the rest solved again.
So the step R/2ᵇ depends on the price alone: it is constant in time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, log2
from typing import Final

import numpy as np
from scipy.optimize import LinearConstraint

from aggregator.solver import milp

LOWEST: Final = 1
HIGHEST: Final = 8
"""Bits that `uniform` has."""
GAP: Final = 1e-3
"""How far from the least error whole widths may be: a thousandth of it."""


@dataclass(frozen=True, slots=True)
class Term:
    """Something to be quantized.

    Attributes:
        weight: what its error counts: reach² times how much its noise matters.
        price: of one bit of width, above 0.
    """

    weight: float
    price: float

    def noise(self, bits: float) -> float:
        """Its share of what is minimized."""
        return float(self.weight / (2.0**bits - 1.0) ** 2)


def real_bits(terms: Sequence[Term], budget: float, low: float = LOWEST, high: float = HIGHEST) -> list[float]:
    """The widths as real numbers; all `low` where the budget is less than that costs.

    Args:
        terms: what is quantized.
        budget: for all of them, in the unit of their prices.
        low: least width.
        high: largest width.
    """
    bits: dict[int, float] = {}
    left = budget
    while len(bits) < len(terms):
        free = [index for index in range(len(terms)) if index not in bits]
        solved = _unbounded([terms[index] for index in free], left)
        wanted = dict(zip(free, solved, strict=True))
        # Widths too narrow owe, those too wide save; only the side that weighs more is surely at its bound.
        owed = sum(terms[index].price * (low - width) for index, width in wanted.items() if width < low)
        saved = sum(terms[index].price * (width - high) for index, width in wanted.items() if width > high)
        if owed >= saved:
            settled = {index: low for index, width in wanted.items() if width <= low}
        else:
            settled = {index: high for index, width in wanted.items() if width >= high}
        if not settled:
            settled = wanted
        bits |= settled
        left -= sum(terms[index].price * width for index, width in settled.items())
    return [bits[index] for index in range(len(terms))]


def whole_bits(terms: Sequence[Term], budget: float, low: int = LOWEST, high: int = HIGHEST) -> list[int]:
    """Whole widths that err least within the budget, to within `GAP`; all `low` where the budget is less.

    One of its widths for each term, as a mixed-integer program: rounding the closed form is far from the best there is
    wherever prices differ.
    """
    costs_T = np.array([term.price for term in terms])
    if costs_T.sum() * low >= budget:
        return [low] * len(terms)
    widths_W = np.arange(low, high + 1)
    noise_TW = np.array([[term.noise(float(width)) for width in widths_W] for term in terms])
    # HiGHS has absolute tolerances too: in units of about what there will be in the end, they are small enough.
    unit = sum(term.noise(width) for term, width in zip(terms, real_bits(terms, budget, low, high), strict=True))
    one_each = np.kron(np.eye(len(terms)), np.ones(len(widths_W)))
    solved = milp(
        noise_TW.ravel() / unit,
        integrality=np.ones(noise_TW.size),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.outer(costs_T, widths_W).reshape(1, -1) / budget, -np.inf, 1),
        ],
        options={"mip_rel_gap": GAP},
    )
    return [int(width) for width in widths_W[solved.x.reshape(noise_TW.shape).argmax(axis=1)]]


def _unbounded(terms: Sequence[Term], budget: float) -> list[float]:
    """The closed form; a term that does not count gets nothing."""
    levels = [0.5 * log2(2.0 * log(2.0) * term.weight / term.price) if term.weight > 0 else -1e6 for term in terms]
    prices = sum(term.price for term in terms)
    half_log_lambda = (sum(term.price * level for term, level in zip(terms, levels, strict=True)) - budget) / prices
    return [level - half_log_lambda for level in levels]
