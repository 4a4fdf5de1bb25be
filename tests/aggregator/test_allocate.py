"""Precisions by budget: the choice, and the sentence that explains it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL

from aggregator.allocate import BestThatFits, Decision
from protocol.energy import inference_energy
from protocol.messages import Cost, EnergySource
from protocol.precision import Precision

ALL = tuple(Precision.parse(name) for name in ("W8A8", "W4A8", "W2A8", "W1A8"))
DAILY = 1_000_000


def j_per_day(precision: Precision) -> float:
    return inference_energy(SMALL, precision).total_mj * DAILY / 1000


def choose(budget_j: float, precisions: tuple[Precision, ...] = ALL, costs: tuple[Cost, ...] = ()) -> Decision:
    return BestThatFits().choose(SMALL, precisions, budget_j, DAILY, costs)


def test_without_a_budget_the_best_is_chosen_and_said_so() -> None:
    decision = choose(0.0)
    assert (str(decision.precision), decision.feasible) == ("W8A8", True)
    assert "no energy budget" in decision.reason


def test_the_best_that_fits_is_chosen_with_both_figures() -> None:
    between = (j_per_day(ALL[0]) + j_per_day(ALL[1])) / 2
    decision = choose(between)
    assert (str(decision.precision), decision.feasible) == ("W4A8", True)
    assert decision.reason.startswith("W4A8 fits: 1,000,000 inferences × ")
    assert "(modelled)" in decision.reason
    assert "; W8A8 needs " in decision.reason


def test_where_nothing_fits_the_cheapest_is_chosen_and_the_nearest_budget_named() -> None:
    decision = choose(1e-6)
    assert (str(decision.precision), decision.feasible) == ("W1A8", False)
    assert f"smallest budget that works is {j_per_day(ALL[3]):.3g} J/day" in decision.reason


def test_a_measured_cost_counts_instead_of_the_model() -> None:
    measured = Cost("W8A8", latency_ms=1.0, energy_mj=1e-6, source=EnergySource.MEASURED)
    decision = choose(0.01, costs=(measured,))
    assert str(decision.precision) == "W8A8"
    assert "(measured)" in decision.reason


def test_a_modelled_cost_of_the_device_does_not_count_as_measured() -> None:
    modelled = Cost("W8A8", latency_ms=1.0, energy_mj=1e-6, source=EnergySource.MODELLED)
    assert not choose(0.0001, costs=(modelled,)).feasible


def test_a_comparison_of_measured_with_modelled_says_so() -> None:
    measured = Cost("W4A8", latency_ms=1.0, energy_mj=1e-6, source=EnergySource.MEASURED)
    assert choose(0.01, costs=(measured,)).reason.endswith("(modelled)")


def test_the_inputs_name_every_precision_with_its_source() -> None:
    inputs = choose(5.0).inputs
    assert [need["precision"] for need in inputs["needs"]] == ["W8A8", "W4A8", "W2A8", "W1A8"]
    assert {need["source"] for need in inputs["needs"]} == {"modelled"}


def test_only_offered_precisions_are_chosen() -> None:
    assert str(choose(1e-6, precisions=ALL[:2]).precision) == "W4A8"


@given(st.floats(0, 1e12), st.integers(0, 1 << 40))
def test_a_feasible_decision_is_within_its_budget_and_reasons_fit_the_wire(budget_j: float, daily: int) -> None:
    decision = BestThatFits().choose(SMALL, ALL, budget_j, daily, ())
    need_j = inference_energy(SMALL, decision.precision).total_mj * daily / 1000
    assert decision.feasible is (budget_j == 0 or need_j <= budget_j)
    assert len(decision.reason) <= 400


@pytest.mark.parametrize("daily", [0, 1])
def test_a_device_that_hardly_infers_gets_the_best(daily: int) -> None:
    assert str(BestThatFits().choose(SMALL, ALL, 1.0, daily, ()).precision) == "W8A8"
