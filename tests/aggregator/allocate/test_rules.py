"""Which precision and why: the choice of the fleet's program and of the plain rule, and the sentences."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL

from aggregator.allocate import BestThatFits, Decision, Policy, Program
from aggregator.allocate.accuracy import UNIT, expected
from aggregator.allocate.limits import Limits
from aggregator.allocate.options import Common, Member, Previous, options_of
from aggregator.allocate.rules import FLEET_ENERGY
from aggregator.allocate.ways import Way
from protocol.energy import inference_energy
from protocol.precision import Precision

ALL = tuple(Precision.parse(name) for name in ("W8A8", "W4A8", "W2A8", "W1A8"))
DAILY = 75_000
COSTS = {"W8A8": 8.2, "W4A8": 4.1, "W2A8": 2.1, "W1A8": 1.0}
COMMON = Common(SMALL, expected(ALL, {}), mean_samples=100.0)
RULES = (Program(), BestThatFits())


def member(j_per_day: float | None = None, name: str = "pi-07", **known: object) -> Member:
    return replace(Member(name, ALL, DAILY, Limits(j_per_day), COSTS), **known)  # type: ignore[arg-type]


def one(policy: Policy, device: Member, common: Common = COMMON) -> Decision:
    (decision,) = policy.choose(common, [device])
    return decision


def told(device: Member, decision: Decision) -> Previous:
    option = decision.option
    way = option.way
    return Previous(str(option.precision), way.recipe, way.epochs, device.limits, device.inferences_per_day)


def names(decisions: Sequence[Decision]) -> list[str]:
    return [str(decision.option.precision) for decision in decisions]


# --- one device ---


@pytest.mark.parametrize("policy", RULES)
class TestOfOneDevice:
    def test_without_a_budget_the_best_is_chosen_and_said_so(self, policy: Policy) -> None:
        decision = one(policy, member())
        assert (names([decision]), decision.feasible) == (["W8A8"], True)
        assert decision.reason == "W8A8 is the best it can run; no energy budget is stated (mains power)"

    def test_the_sentence_has_both_figures_and_where_they_come_from(self, policy: Policy) -> None:
        decision = one(policy, member(268.0))
        assert names([decision]) == ["W2A8"]
        assert decision.reason == (
            "W4A8 needs 308 J/day at its measured 4.1 mJ × 75,000 inferences, its budget leaves 268;"
            " W2A8 needs 158 (measured)"
        )

    def test_what_was_not_measured_is_modelled_and_called_so(self, policy: Policy) -> None:
        need_j = inference_energy(SMALL, ALL[0]).total_mj * DAILY / 1000
        decision = one(policy, member(need_j, costs={}))
        assert names([decision]) == ["W8A8"]
        assert "(modelled)" in decision.reason

    def test_where_nothing_fits_the_nearest_budget_is_named(self, policy: Policy) -> None:
        decision = one(policy, member(10.0))
        assert (names([decision]), decision.feasible) == (["W1A8"], False)
        assert decision.reason == (
            "nothing fits 10 J/day; W1A8 comes nearest: 75,000 inferences × 1 mJ (measured) = 75 J/day,"
            " so the smallest budget that works is 75 J/day"
        )
        assert decision.inputs["smallest_j_per_day"] == 75.0

    def test_a_budget_of_zero_is_a_budget_of_zero(self, policy: Policy) -> None:
        decision = one(policy, member(0.0))
        assert (names([decision]), decision.feasible) == (["W1A8"], False)
        assert decision.reason.startswith("nothing fits 0 J/day; W1A8 comes nearest")

    def test_a_device_that_infers_nothing_fits_a_budget_of_zero(self, policy: Policy) -> None:
        decision = one(policy, member(0.0, inferences_per_day=0))
        assert (names([decision]), decision.feasible) == (["W8A8"], True)

    def test_latency_is_a_limit_with_a_sentence_of_its_own(self, policy: Policy) -> None:
        slow = member(limits=Limits(latency_ms=20.0), latency_ms={"W8A8": 31.0})
        decision = one(policy, slow)
        assert (names([decision]), decision.feasible) == (["W4A8"], True)
        assert decision.reason == "W8A8 takes 31 ms, its limit is 20"

    def test_memory_is_a_limit_with_a_sentence_of_its_own(self, policy: Policy) -> None:
        wide, narrow = (option.memory_bytes for option in options_of(COMMON, member())[:2])
        decision = one(policy, member(limits=Limits(memory_bytes=(wide + narrow) / 2)))
        assert names([decision]) == ["W4A8"]
        assert decision.reason.startswith("W8A8 takes ")
        assert " MB, its memory leaves " in decision.reason

    def test_limits_that_contradict_each_other_are_named(self, policy: Policy) -> None:
        fast_when_wide = {"W8A8": 5.0, "W4A8": 9.0, "W2A8": 30.0, "W1A8": 40.0}
        decision = one(policy, member(limits=Limits(200.0, latency_ms=20.0), latency_ms=fast_when_wide))
        assert not decision.feasible
        assert decision.reason == (
            "budget of at most 200 J/day and latency of at most 20 ms contradict each other; W2A8 comes nearest: it"
            " would work with latency 30 ms"
        )
        assert decision.inputs["smallest_j_per_day"] == pytest.approx(307.5)

    def test_a_limit_that_nothing_keeps_is_named_alone(self, policy: Policy) -> None:
        slow = dict.fromkeys(COSTS, 50.0)
        decision = one(policy, member(limits=Limits(1e9, latency_ms=20.0), latency_ms=slow))
        assert decision.reason.startswith("nothing keeps latency of at most 20 ms; ")
        assert decision.inputs["smallest_j_per_day"] is None

    def test_the_inputs_say_what_every_precision_needs_and_exceeds(self, policy: Policy) -> None:
        inputs = one(policy, member(268.0)).inputs
        assert [need["precision"] for need in inputs["needs"]] == ["W8A8", "W4A8", "W2A8", "W1A8"]
        assert [need["exceeds"] for need in inputs["needs"]] == [["budget"], ["budget"], [], []]
        assert inputs["limits"] == {"budget": 268.0}
        assert {need["accuracy_source"] for need in inputs["needs"]} == {"prior"}

    @given(
        budget=st.none() | st.floats(0, 1e12),
        latency=st.none() | st.floats(0.1, 100),
        memory=st.none() | st.floats(0, 1e9),
        daily=st.integers(0, 1 << 40),
        costs=st.dictionaries(st.sampled_from(list(COSTS)), st.floats(1e-6, 1e6)),
        latencies=st.dictionaries(st.sampled_from(list(COSTS)), st.floats(0.1, 100)),
    )
    def test_no_limit_is_ever_exceeded_by_what_is_called_feasible(
        self,
        policy: Policy,
        budget: float | None,
        latency: float | None,
        memory: float | None,
        daily: int,
        costs: dict[str, float],
        latencies: dict[str, float],
    ) -> None:
        limits = Limits(budget, latency, memory)
        device = member(limits=limits, inferences_per_day=daily, costs=costs, latency_ms=latencies)
        decision = one(policy, device)
        possible = [option for option in options_of(COMMON, device) if not limits.broken(option.needs)]
        assert decision.feasible == bool(possible)
        assert not possible or not limits.broken(decision.option.needs)
        assert len(decision.reason) <= 400


# --- the fleet ---


def test_what_the_fleet_may_use_goes_where_it_is_worth_most() -> None:
    thrifty = [member(None, f"pi-{index}", inferences_per_day=1000) for index in range(3)]
    hungry = member(None, "jetson")
    common = replace(COMMON, j_per_day=100.0)
    decisions = Program().choose(common, [*thrifty, hungry])
    assert names(decisions) == ["W8A8", "W8A8", "W8A8", "W1A8"]
    assert all(decision.feasible for decision in decisions)
    assert decisions[3].reason == "W2A8 keeps its own limits, but within the fleet's other devices gain more"
    assert decisions[0].inputs["program"]["proven"] is True


def test_enough_devices_run_each_precision() -> None:
    common = replace(COMMON, least={str(precision): 2 for precision in ALL})
    decisions = Program().choose(common, [member(None, f"pi-{index}") for index in range(8)])
    assert sorted(names(decisions)) == sorted(2 * [str(precision) for precision in ALL])


def test_a_fleet_limit_that_cannot_be_kept_is_reported_with_what_it_takes() -> None:
    decisions = Program().choose(replace(COMMON, j_per_day=100.0), [member(None, "a"), member(None, "b")])
    assert names(decisions) == ["W1A8", "W1A8"]
    assert not any(decision.feasible for decision in decisions)
    expectation = "the fleet's limit leaves 100 J/day of the fleet, its devices need at least 150; "
    assert all(decision.reason.startswith(expectation) for decision in decisions)


def test_a_device_that_keeps_no_limit_takes_its_part_of_the_fleets_away_from_the_others() -> None:
    broken, other = member(10.0, "broken"), member(None, "other")
    decisions = Program().choose(replace(COMMON, j_per_day=75.0 + 160.0), [broken, other])
    assert names(decisions) == ["W1A8", "W2A8"]
    assert [decision.feasible for decision in decisions] == [False, True]


WAYS = (Way("uniform:8", 1, 1000, 0.0001), Way("sign", 1, 130, 0.36), Way("sign", 3, 130, 0.36))


def test_bits_and_epochs_are_chosen_with_the_precision() -> None:
    """Sending dear bits or training more must not cost a device its precision where cheap ones do."""
    common = replace(COMMON, rounds_per_day=10.0, uplink_mj=lambda count: 10.0 * count)
    training_j = 10 * common.training_mj * 100 / 1000
    left_j = COSTS["W4A8"] * DAILY / 1000 + 10 * 10 * 130 / 1000 + 1.001 * training_j
    decision = one(Program(), member(left_j, samples=100, ways=WAYS), common)
    assert (names([decision]), decision.option.way) == (["W4A8"], WAYS[1])
    roomy = one(Program(), member(None, samples=100, ways=WAYS), common)
    assert roomy.option.way == max(WAYS, key=lambda way: way.quality)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Common, list[Member]]:
    budgets = st.none() | st.floats(50, 1000)
    ways = st.sampled_from([WAYS[:1], WAYS[:2]])
    devices = [
        member(draw(budgets), f"pi-{index}", samples=draw(st.integers(0, 300)), ways=draw(ways)) for index in range(3)
    ]
    limits = {
        "j_per_day": draw(st.none() | st.floats(100, 2000)),
        "uplink_bytes": draw(st.none() | st.floats(300, 3500)),
    }
    return replace(COMMON, **limits), devices


@given(fleets())
def test_the_fleet_gains_what_trying_everything_finds(fleet: tuple[Common, list[Member]]) -> None:
    common, devices = fleet
    decisions = Program().choose(common, devices)
    if not all(decision.feasible for decision in decisions):
        return
    options = [
        [option for option in options_of(common, device) if not device.limits.broken(option.needs)]
        for device in devices
    ]
    kept = [
        together
        for together in product(*options)
        if sum(option.j_per_day for option in together) <= (common.j_per_day or 1e300) * (1 - 3e-6)
        and sum(option.way.payload_bytes for option in together) <= (common.uplink_bytes or 1e300) * (1 - 3e-6)
    ]
    gained = sum(round(decision.option.gain / UNIT) for decision in decisions)
    if kept:
        assert gained >= max(sum(round(option.gain / UNIT) for option in together) for together in kept)
    used_j = sum(decision.inputs["uses"][FLEET_ENERGY] for decision in decisions)
    assert used_j <= (common.j_per_day or 1e300) * (1 + 1e-12)


@given(fleets())
def test_the_same_fleet_is_told_the_same_again(fleet: tuple[Common, list[Member]]) -> None:
    common, devices = fleet
    first = Program().choose(common, devices)
    again = [replace(device, previous=told(device, decision)) for device, decision in zip(devices, first, strict=True)]
    second = Program().choose(common, again)
    assert [decision.option for decision in second] == [decision.option for decision in first]


# --- hysteresis ---


def test_figures_that_jitter_move_a_device_once_at_most() -> None:
    device, seen = member(4.1 * DAILY / 1000), []
    for round_number in range(20):
        jitter = 1.02 if round_number % 2 else 0.98
        now = replace(device, costs={name: cost * jitter for name, cost in COSTS.items()})
        decision = one(Program(), now)
        device = replace(device, previous=told(device, decision))
        seen.append(str(decision.option.precision))
    assert seen == ["W4A8", *["W2A8"] * 19]
    assert one(BestThatFits(), replace(device, previous=None)).option.precision == ALL[1]


def test_a_change_that_lacks_room_says_so() -> None:
    device = member(4.1 * DAILY / 1000 * 1.01)
    narrow = Previous("W2A8", "", 0, device.limits, DAILY)
    decision = one(Program(), replace(device, previous=narrow))
    assert names([decision]) == ["W2A8"]
    assert decision.reason == "W4A8 needs 308 of 311 J/day, a change must leave 5%: it stays as it is"


def test_a_change_that_promises_little_is_not_made() -> None:
    close = replace(COMMON, accuracy=expected(ALL, {"W8A8": [0.8005], "W4A8": [0.8]}))
    device = member()
    stays = replace(device, previous=Previous("W4A8", "", 0, device.limits, DAILY))
    decision = one(Program(), stays, close)
    assert names([decision]) == ["W4A8"]
    assert decision.reason == "W8A8 promises 0.05 points more, a change takes 0.1: it stays as it is"
    assert names([one(Program(), device, close)]) == ["W8A8"]


def test_new_limits_count_at_once() -> None:
    device = member(4.1 * DAILY / 1000 * 1.01)
    before = Previous("W2A8", "", 0, Limits(200.0), DAILY)
    assert names([one(Program(), replace(device, previous=before))]) == ["W4A8"]


def test_what_no_longer_fits_is_left_whatever_was_before() -> None:
    device = member(200.0)
    wide = Previous("W4A8", "", 0, device.limits, DAILY)
    assert names([one(Program(), replace(device, previous=wide))]) == ["W2A8"]


# --- expectations ---


def test_a_wider_precision_is_never_expected_to_be_worse() -> None:
    found = expected(ALL, {"W8A8": [0.80], "W2A8": [0.84, 0.86]})
    assert found["W2A8"].accuracy == pytest.approx(0.85)
    assert [found[str(precision)].accuracy for precision in ALL] == sorted(
        (found[str(precision)].accuracy for precision in ALL), reverse=True
    )
    assert (found["W8A8"].source, found["W1A8"].source) == ("rated", "prior")


def test_what_was_not_rated_stands_beside_what_was_as_in_the_prior() -> None:
    found = expected(ALL, {"W8A8": [0.7]})
    assert found["W8A8"].accuracy - found["W2A8"].accuracy == pytest.approx(0.009)


def test_more_bits_and_more_epochs_are_worth_more_and_less_so_each_time() -> None:
    by_epochs = [Way("sign", epochs, 0, 0.36).quality for epochs in range(5)]
    steps = [b - a for a, b in pairwise(by_epochs)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0
    by_error = [Way("", 1, 0, error).quality for error in (0.0, 0.0096, 0.036, 0.133, 0.571)]
    assert by_error == sorted(by_error, reverse=True)
