"""Every policy: deterministic, canonical recipes that the codec knows; then each by its own law."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.downlink import Downlink
from aggregator.rates import policy
from aggregator.rates.adaquantfl import bits_of
from aggregator.rates.base import BudgetError, Prices, Seen, Spread, Spreads
from aggregator.rates.dadaquant import by_share, doubled
from aggregator.rates.fedaq import DOWN_COUNTS, expected
from aggregator.rates.fedaq_layers import HEAD_BYTES
from aggregator.rates.fedaq_layers import bits_of as bits_of_reach
from protocol.codec.recipe import Recipe
from protocol.errors import Unsupported

SPECS = (
    *("fixed", "feddq:0.01", "adaquantfl:2", "dadaquant", "fedaq:0.2", "fedaq-layers:0.2", "best:0.2"),
    *("best:0.2+rc", "fedaq:0.2+rc"),
)
PRICES = Prices(2e-6, 3e-6, 2e-6, 2.5e-6)
SIDE = (600, 2000)


def _spreads(reach: float) -> Spreads:
    return tuple(Spread(size, reach * factor, reach * factor / 12) for size, factor in ((90_000, 1.0), (10_000, 2.0)))


def _seen(number: int, rounds: int = 20, **changes: object) -> Seen:
    """Before round `number` of a run that goes as runs go: updates shrink, weights grow, the loss falls."""
    seen = Seen(
        number=number,
        rounds=rounds,
        shares=(0.1,) * 10,
        loss=[2.0 / done for done in range(1, number)],
        weights=[_spreads(0.5 * done**0.3) for done in range(1, number + 1)],
        updates=[_spreads(0.5 * done**-0.6) for done in range(1, number)],
        spent_j=0.0,
        last_j=(0.0, 0.0),
        last=None,
        fleet=10,
        prices=PRICES,
        side_bytes=SIDE,
    )
    return replace(seen, **changes)


def _bits(recipe: str) -> int:
    return int(Recipe.parse(recipe).rate)


def _cost_j(seen: Seen, up: str, down: str) -> float:
    codes = seen.values / 8
    up_j = seen.prices.up_j_per_byte * (SIDE[0] + codes * _bits(up))
    return up_j + seen.prices.down_j_per_byte * (SIDE[1] + codes * _bits(down))


def _played(round_j: float, rounds: int, prices: Iterator[Prices] | None = None) -> tuple[list[tuple[str, str]], float]:
    """What `fedaq` decides over a whole run, and what it spends."""
    decided, spent_j = [], 0.0
    for number in range(1, rounds + 1):
        seen = _seen(number, rounds, spent_j=spent_j, prices=next(prices) if prices else PRICES)
        rates = policy(f"fedaq:{round_j:.6f}", "fp32", "fp32").rates(seen)
        decided.append((rates.up[0], rates.down))
        spent_j += _cost_j(seen, *decided[-1])
    return decided, spent_j


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("number", [1, 2, 7, 20])
def test_rates_are_known_recipes_and_the_same_for_the_same_sight(spec: str, number: int):
    rates = policy(spec, "ef+sign", "fp32").rates(_seen(number))
    assert rates == policy(spec, "ef+sign", "fp32").rates(_seen(number))
    assert len(rates.up) == 10
    assert all(str(Recipe.parse(recipe)) == recipe for recipe in rates.up)
    assert str(Downlink.parse(rates.down)) == rates.down
    assert rates.reason


@pytest.mark.parametrize(
    "spec", ["", "fixed:1", "fixed+rc", "feddq:0", "feddq:11", "adaquantfl:0", "fedaq", "fedaq:0", "best:-1", "zip:1"]
)
def test_a_policy_that_does_not_exist_is_refused(spec: str):
    with pytest.raises(Unsupported, match="rates"):
        policy(spec, "fp32", "fp32")


def test_fedaq_takes_bits_from_updates_and_gives_them_to_weights():
    decided, _ = _played(0.2, 20)
    ups, downs = [_bits(up) for up, _ in decided], [_bits(down) for _, down in decided]
    assert ups == sorted(ups, reverse=True)
    assert ups[0] > ups[-1]
    assert downs == sorted(downs)
    assert downs[0] < downs[-1]


@given(st.floats(0.1, 0.6), st.integers(1, 12), st.lists(st.floats(0.3, 1.0), min_size=12, max_size=12))
@settings(deadline=None, max_examples=40)
def test_fedaq_never_spends_more_than_its_budget(round_j: float, rounds: int, nearer: list[float]):
    """Whatever devices a round draws: none is farther than the farthest."""
    prices = (Prices(3e-6 * near, 3e-6, 2.5e-6 * near, 2.5e-6) for near in nearer)
    _, spent_j = _played(round_j, rounds, prices)
    assert spent_j <= round_j * rounds * (1 + 1e-6)


def test_a_budget_below_one_bit_names_the_smallest_that_works():
    with pytest.raises(BudgetError, match=r"the smallest that works is 0\.0\d+ J a round"):
        policy("fedaq:0.001", "fp32", "fp32").rates(_seen(1))


def test_a_trend_is_a_power_of_the_round():
    history = [3.0 * number**-0.5 for number in range(1, 9)]
    assert expected(history, 4) == pytest.approx(3.0 * 12**-0.5)
    assert expected([2.0, 1.0], 5) == 1.0


def test_layers_have_one_step_a_direction_and_bits_that_fit_the_budget():
    seen = _seen(6, spent_j=5 * 0.2)
    rates = policy("fedaq-layers:0.2", "fp32", "fp32").rates(seen)
    up, down = Recipe.parse(rates.up[0]).rate, Recipe.parse(rates.down).rate
    assert up / down == pytest.approx(math.sqrt(10 * DOWN_COUNTS), rel=1e-3)
    planned_j = sum(
        price * (side + sum(HEAD_BYTES + spread.size * bits_of_reach(spread.reach, step) / 8 for spread in spreads))
        for price, side, spreads, step in (
            (PRICES.up_j_per_byte, SIDE[0], seen.updates[-1], up),
            (PRICES.down_j_per_byte, SIDE[1], seen.weights[-1], down),
        )
    )
    assert 0.1 < planned_j < 0.3
    finer = policy("fedaq-layers:0.3", "fp32", "fp32").rates(seen)
    assert Recipe.parse(finer.down).rate < down


def test_layers_within_no_budget_name_what_no_code_at_all_takes():
    with pytest.raises(BudgetError, match=r"expected above 0\.0\d+"):
        policy("fedaq-layers:0.001", "fp32", "fp32").rates(_seen(1))


def test_adaquantfl_takes_more_levels_as_the_loss_falls():
    chosen = [policy("adaquantfl:2", "fp32", "fp32").rates(_seen(number)).up[0] for number in (1, 2, 10, 17)]
    assert [_bits(up) for up in chosen] == [bits_of(math.ceil(2 * math.sqrt(ratio))) for ratio in (1, 1, 9, 16)]


def test_dadaquant_doubles_when_the_loss_stands_still():
    assert doubled(1, [1.0] * 11, 5) == 4
    assert doubled(1, [0.9**number for number in range(30)], 5) == 1


def test_dadaquant_gives_more_levels_to_whoever_has_more_pictures_and_errs_alike():
    shares = [0.5, 0.3, 0.2]
    levels = by_share(4, shares)
    assert levels == sorted(levels, reverse=True)
    errors = sum((share / level) ** 2 for share, level in zip(shares, levels, strict=True))
    assert errors == pytest.approx(sum((share / 4) ** 2 for share in shares))


def test_best_rotates_within_its_share_of_the_budget_where_there_is_no_coder():
    rates = policy("best:0.1", "fp32", "fp32").rates(_seen(5))
    assert rates.up[0].startswith("ef+eden:")
    assert rates.down.startswith("delta:eden:")


def test_best_steps_keep_their_ratio_and_grow_when_rounds_cost_too_much():
    best = policy("best:0.1+rc", "fp32", "fp32")
    first, second = best.rates(_seen(1)), best.rates(_seen(2, last_j=(0.02, 0.02), spent_j=0.04))
    assert first.up == ("eden:1",) * 10
    assert second.up_step > 0
    dear = best.rates(_seen(3, last=second, last_j=(0.1, 0.1), spent_j=0.24))
    assert dear.up_step > second.up_step
    fair = best.rates(_seen(3, last=second, last_j=(0.05, 0.05), spent_j=0.14))
    assert fair.up_step == second.up_step
    up, down = (Recipe.parse(text.removeprefix("delta:")).rate for text in (fair.up[0], fair.down))
    assert up / down == pytest.approx(math.sqrt(10 * PRICES.up_j_per_byte / PRICES.down_j_per_byte), rel=1e-3)


def test_best_forgets_feedback_where_devices_rarely_come_back():
    best = policy("best:0.1+rc", "fp32", "fp32")
    assert not best.rates(_seen(2, fleet=50)).up[0].startswith("ef+")
    assert best.rates(_seen(2)).up[0].startswith("ef+")
