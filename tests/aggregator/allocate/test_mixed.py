"""Bits layer by layer, against trying everything and against one width for all."""

from itertools import product

import pytest
from strategies import SMALL

from aggregator.allocate.choices import Infeasible
from aggregator.allocate.mixed import Plan, plan
from protocol.energy import bops, model_bytes
from protocol.precision import Precision

WIDTHS = (8, 4, 2)
FREE = [layer.name for layer in SMALL.layers if layer.weight_shape is not None and not layer.pinned]
LOSSES = {name: {bits: (index % 5 + 1) * 10.0 * 4.0**-bits for bits in WIDTHS} for index, name in enumerate(FREE)}


def uniform(bits: int) -> Plan:
    return plan(SMALL, {name: {bits: losses[bits]} for name, losses in LOSSES.items()})


def test_at_one_width_a_plan_costs_what_the_energy_model_says() -> None:
    for bits in WIDTHS:
        assert uniform(bits).weight_bytes == model_bytes(SMALL, Precision(bits, 8))
        assert uniform(bits).bops == bops(SMALL, Precision(bits, 8))


def test_mixed_bits_lose_less_than_one_width_of_the_same_size() -> None:
    four = uniform(4)
    mixed = plan(SMALL, LOSSES, weight_bytes=four.weight_bytes)
    assert mixed.proven
    assert mixed.weight_bytes <= four.weight_bytes
    assert mixed.loss < four.loss


def test_a_plan_is_the_best_of_all() -> None:
    limit = (uniform(8).bops + uniform(2).bops) / 2
    found = plan(SMALL, LOSSES, bops=limit)
    every = (
        [
            plan(SMALL, {name: {bits: LOSSES[name][bits]} for name, bits in zip(FREE, each, strict=True)})
            for each in product(WIDTHS, repeat=min(len(FREE), 4))
        ]
        if len(FREE) <= 4
        else []
    )
    kept = [each.loss for each in every if each.bops <= limit]
    assert found.bops <= limit
    if kept:
        assert found.loss == pytest.approx(min(kept), rel=1e-5)


def test_without_limits_every_layer_takes_what_loses_least() -> None:
    assert set(plan(SMALL, LOSSES).bits.values()) == {8}


def test_too_little_for_the_narrowest_is_infeasible() -> None:
    with pytest.raises(Infeasible, match="bytes of weights"):
        plan(SMALL, LOSSES, weight_bytes=10.0)


def test_what_is_missing_unknown_or_no_loss_is_named() -> None:
    with pytest.raises(ValueError, match=f"missing {FREE[0]}; unknown ghost"):
        plan(SMALL, {name: LOSSES[name] for name in FREE[1:]} | {"ghost": {8: 0.0}})
    with pytest.raises(ValueError, match="expected a loss of 0 or more"):
        plan(SMALL, LOSSES | {FREE[0]: {8: float("nan")}})
