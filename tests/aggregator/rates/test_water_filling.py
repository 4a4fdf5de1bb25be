"""The closed form against its own definition, whole bits against every combination."""

from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.rates.water_filling import HIGHEST, LOWEST, Term, real_bits, whole_bits

TERMS = st.lists(st.builds(Term, st.floats(1e-4, 1e4), st.floats(0.1, 10.0)), min_size=1, max_size=4)
SHARES = st.floats(0.0, 1.2)


def _spent(terms: list[Term], bits: list[float]) -> float:
    return sum(term.price * width for term, width in zip(terms, bits, strict=True))


def _budget(terms: list[Term], share: float) -> float:
    """Between what the least and the largest widths cost."""
    return sum(term.price for term in terms) * (LOWEST + share * (HIGHEST - LOWEST))


def _noise(terms: list[Term], bits: list[float]) -> float:
    return sum(term.noise(width) for term, width in zip(terms, bits, strict=True))


def _brute_force(terms: list[Term], budget: float) -> float:
    widths = product(range(LOWEST, HIGHEST + 1), repeat=len(terms))
    return min((_noise(terms, bits) for bits in widths if _spent(terms, bits) <= budget), default=inf)


def test_the_step_is_constant_where_the_price_is():
    reaches = np.array([0.8, 0.4, 0.2])
    bits = real_bits([Term(reach**2, 1.0) for reach in reaches], 9.0)
    steps = reaches / 2.0 ** np.array(bits)
    assert steps == pytest.approx(steps[0])
    assert sum(bits) == pytest.approx(9.0)


def test_what_is_common_to_n_devices_gets_half_of_log_n_bits_more():
    up, down = real_bits([Term(1.0 / 10, 1.0), Term(1.0, 1.0)], 8.0)
    assert down - up == pytest.approx(0.5 * np.log2(10))


@given(TERMS, SHARES)
def test_real_bits_spend_the_budget_and_keep_their_bounds(terms: list[Term], share: float):
    budget = _budget(terms, share)
    bits = real_bits(terms, budget)
    assert all(LOWEST <= width <= HIGHEST for width in bits)
    most = sum(term.price for term in terms) * HIGHEST
    assert _spent(terms, bits) == pytest.approx(min(budget, most))


@given(TERMS, SHARES, st.data())
def test_no_small_move_between_two_terms_errs_less(terms: list[Term], share: float, data: st.DataObject):
    """By 4⁻ᵇ, which is what the closed form minimizes."""
    bits = real_bits(terms, _budget(terms, share))
    giver, taker = (data.draw(st.integers(0, len(terms) - 1)) for _ in range(2))
    energy = 1e-3
    less, more = bits[giver] - energy / terms[giver].price, bits[taker] + energy / terms[taker].price
    if giver == taker or less < LOWEST or more > HIGHEST:
        return
    change = terms[giver].weight * (4.0**-less - 4.0 ** -bits[giver])
    change += terms[taker].weight * (4.0**-more - 4.0 ** -bits[taker])
    assert change >= -1e-9 * (terms[giver].weight + terms[taker].weight)


@given(TERMS, SHARES)
@settings(max_examples=60, deadline=None)
def test_whole_bits_come_within_a_hundredth_of_every_combination(terms: list[Term], share: float):
    budget = _budget(terms, share)
    bits = whole_bits(terms, budget)
    assert _spent(terms, bits) <= budget * (1 + 1e-6)
    assert _noise(terms, bits) <= 1.01 * _brute_force(terms, budget)


def test_below_the_least_widths_there_is_nothing_to_take_away():
    assert real_bits([Term(1.0, 1.0), Term(2.0, 1.0)], 0.5) == [LOWEST, LOWEST]
    assert whole_bits([Term(1.0, 1.0), Term(2.0, 1.0)], 0.5) == [LOWEST, LOWEST]


def test_a_term_that_does_not_count_gets_the_least():
    assert real_bits([Term(0.0, 1.0), Term(1.0, 1.0)], 5.0) == [LOWEST, pytest.approx(4.0)]
