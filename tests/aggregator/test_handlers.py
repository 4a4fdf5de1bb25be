"""What messages and commands do: who is let in, what is ignored, what is counted."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from fleet import JOB, TOPICS, Fleet, Handset, Opener
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from aggregator import devices, handlers
from aggregator.faults import CommandRefused, Fault
from aggregator.store import Outgoing, RefusalCount
from protocol.errors import Refusal
from protocol.messages import ModelOffer, Offer, State, Status, Telemetry

# --- what devices say ---


def test_a_birth_is_kept_and_brings_a_precision_with_its_reason(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    device = fleet.device("a")
    assert (device.status, device.session, device.precision) == ("online", 1, "W8A8")
    assert device.birth["samples"] == a.samples
    assert "no energy budget" in device.reason
    assert device.decision["feasible"] is True
    assert device.seen_at == fleet.clock.wall_s


def test_a_stale_will_of_an_older_session_is_ignored(fleet: Fleet) -> None:
    """BF-017."""
    (a,) = fleet.connected("a")
    a.connect()
    a.say_state(Status.OFFLINE, session=1)
    assert fleet.device("a").status == "online"
    a.say_state(Status.OFFLINE, session=2)
    assert fleet.device("a").status == "offline"
    assert fleet.refusals() == {}


def test_a_stale_birth_is_ignored(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    a.connect()
    a.say_birth(session=1, samples=7)
    assert fleet.device("a").birth["samples"] == 100
    assert fleet.refusals() == {}


def test_retained_messages_that_come_again_are_no_replays(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    topic = TOPICS.device("a", "state")
    data = a.send(topic, State(Status.SLEEPING, 1))
    handlers.on_message(fleet.room, topic, data)
    assert fleet.refusals() == {}
    assert fleet.device("a").status == "sleeping"


def test_telemetry_is_kept_with_the_time_it_came(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    fleet.clock.pass_(5.0)
    a.send(TOPICS.device("a", "tele"), Telemetry("training", "t", 0.5, 10, 20, 1, 3.5, "half way"))
    telemetry = fleet.device("a").telemetry
    assert (telemetry["lifecycle"], telemetry["progress"]) == ("training", 0.5)
    assert telemetry["received_at"] == fleet.device("a").seen_at == fleet.clock.wall_s


def test_a_decline_is_kept_with_its_reason_and_the_device_left_alone(open_fleet: Opener) -> None:
    """BF-021."""
    fleet = open_fleet(replace(JOB, rounds=0))
    a, b = fleet.connected("a", "b")
    fleet.run()
    a.decline(a.offer(), retry_after_s=500.0)
    assert fleet.tasks()["a"] == "declined"
    b.deliver_update()
    fleet.run()
    assert b.take(Offer)
    assert a.take(Offer) == []


def test_a_device_cannot_ask_to_be_left_alone_for_ever(fleet: Fleet) -> None:
    a, _ = fleet.connected("a", "b")
    fleet.run()
    a.decline(a.offer(), retry_after_s=1e9)
    assert fleet.device("a").retry_at == fleet.clock.wall_s + 86400.0


def test_a_decline_for_a_task_of_another_device_is_refused(fleet: Fleet) -> None:
    a, b = fleet.connected("a", "b")
    fleet.run()
    b.decline(a.offer())
    assert fleet.refusals() == {("b", "unknown-task"): 1}
    assert fleet.tasks() == {"a": "offered", "b": "offered"}


def test_a_decline_after_delivery_takes_nothing_back(fleet: Fleet) -> None:
    a, _ = fleet.connected("a", "b")
    fleet.run()
    offer = a.offer()
    a.upload(offer, a.train(offer))
    a.decline(offer)
    assert fleet.tasks()["a"] == "accepted"


# --- the model a device should run ---


def trained_fleet(open_fleet: Opener, *names: str) -> Fleet:
    fleet = open_fleet()
    fleet.connected(*names)
    fleet.run()
    for device in fleet.handsets.values():
        device.deliver_update()
    fleet.run()
    return fleet


def test_a_device_with_another_model_is_offered_the_right_one_at_every_birth(open_fleet: Opener) -> None:
    fleet = trained_fleet(open_fleet, "a")
    a = fleet.handsets["a"]
    (offer,) = a.take(ModelOffer)
    a.connect()
    fleet.deliver()
    assert a.take(ModelOffer) == [offer]
    a.say_birth(model_digest=offer.digest)
    a.connect()
    fleet.deliver()
    assert a.take(ModelOffer) == []


def test_a_device_that_joins_after_the_last_round_gets_the_model(open_fleet: Opener) -> None:
    fleet = trained_fleet(open_fleet, "a")
    (late,) = fleet.connected("late", precisions=("W8A8", "W1A8"))
    fleet.run()
    (offer,) = late.take(ModelOffer)
    assert (offer.version, offer.precision) == (1, "W8A8")


def test_a_device_that_runs_no_trained_precision_is_told_why_it_gets_none(open_fleet: Opener) -> None:
    fleet = trained_fleet(open_fleet, "a")
    (late,) = fleet.connected("late", precisions=("W1A8",))
    fleet.run()
    assert late.take(ModelOffer) == []
    assert fleet.device("late").reason == "it runs none of the fleet's precisions: W8A8"


def test_a_new_budget_brings_another_precision_and_its_model(open_fleet: Opener) -> None:
    fleet = open_fleet()
    a, b = fleet.connected("a", "b")
    b.say_birth(precisions=("W1A8",))
    fleet.run()
    a.deliver_update()
    b.deliver_update()
    fleet.run()
    a.inbox.clear()
    b.say_birth(precisions=("W8A8",))
    handlers.set_budget(fleet.room, "a", 1e-9)
    assert fleet.device("a").precision == "W1A8"
    assert fleet.device("a").decision["feasible"] is False
    fleet.run()
    (offer,) = a.take(ModelOffer)
    assert offer.precision == "W1A8"
    handlers.set_budget(fleet.room, "a", None)
    assert fleet.device("a").precision == "W8A8"


def test_an_operators_budget_goes_before_the_devices_own(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    a.say_birth(budget_j_per_day=1e-9)
    assert fleet.device("a").precision == "W1A8"
    handlers.set_budget(fleet.room, "a", devices.MAINS_J_PER_DAY)
    assert fleet.device("a").precision == "W8A8"


def test_an_operators_budget_of_zero_is_zero_and_reported_with_the_nearest_that_works(fleet: Fleet) -> None:
    fleet.connected("a")
    handlers.set_budget(fleet.room, "a", 0.0)
    device = fleet.device("a")
    assert (device.precision, device.decision["feasible"]) == ("W1A8", False)
    assert device.reason.startswith("nothing fits 0 J/day; W1A8 comes nearest: ")
    smallest = device.decision["smallest_j_per_day"]
    assert smallest > 0
    handlers.set_budget(fleet.room, "a", smallest)
    assert fleet.device("a").decision["feasible"] is True


@pytest.mark.parametrize("joules", [-1.0, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(fleet: Fleet, joules: float) -> None:
    fleet.connected("a")
    with pytest.raises(CommandRefused, match="budget") as refusal:
        handlers.set_budget(fleet.room, "a", joules)
    assert refusal.value.fault is Fault.INVALID


def test_a_budget_may_be_set_before_the_device_has_introduced_itself(fleet: Fleet) -> None:
    (a,) = fleet.join("a")
    handlers.set_budget(fleet.room, "a", 1e-9)
    a.connect()
    assert fleet.device("a").precision == "W1A8"


@pytest.mark.parametrize("command", [handlers.revoke, lambda room, device: handlers.set_budget(room, device, 1.0)])
def test_commands_on_an_unknown_device_name_it(fleet: Fleet, command: Callable[..., None]) -> None:
    with pytest.raises(CommandRefused, match="'ghost'") as refusal:
        command(fleet.room, "ghost")
    assert refusal.value.fault is Fault.NOT_FOUND


def test_there_is_nothing_to_abort_without_a_round(fleet: Fleet) -> None:
    with pytest.raises(CommandRefused, match="no round") as refusal:
        handlers.abort_round(fleet.room)
    assert refusal.value.fault is Fault.CONFLICT


def test_pausing_twice_and_resuming_twice_is_no_error(fleet: Fleet) -> None:
    for command in (handlers.pause, handlers.pause, handlers.resume, handlers.resume):
        command(fleet.room)


# --- strangers ---


def test_a_stranger_is_counted_without_its_name(fleet: Fleet) -> None:
    stranger = Handset("stranger", fleet)
    for _ in range(3):
        stranger.say_birth()
    assert fleet.refusals() == {("", "unknown-device"): 3}


def test_topics_that_no_device_publishes_to_are_counted(fleet: Fleet) -> None:
    for topic in ("", "bitfleet/v1/other/d/a/state", "bitfleet/v1/test/d/A/state", "bitfleet/v1/test/srv/state"):
        handlers.on_message(fleet.room, topic, b"")
    assert fleet.refusals() == {("", "malformed"): 4}


def test_a_message_on_the_wrong_topic_is_malformed(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    a.send(TOPICS.device("a", "tele"), State(Status.ONLINE, 1))
    a.send(TOPICS.manifest("0", "a", "t"), State(Status.OFFLINE, 1))
    assert fleet.refusals() == {("a", "malformed"): 2}
    assert fleet.device("a").status == "online"


def test_every_refusal_code_fits_its_column(fleet: Fleet) -> None:
    assert all(len(code.value) <= 32 for code in Refusal)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), leaf=st.sampled_from(["state", "birth", "tele", "rsp/x", "up", "c"]))
def test_any_bytes_on_any_topic_are_refused_and_change_nothing(fleet: Fleet, data: bytes, leaf: str) -> None:
    if "a" not in fleet.handsets:
        fleet.connected("a")
    upload = f"{TOPICS.root}/up/0/a/x"
    topic = {"up": f"{upload}/m", "c": f"{upload}/c/0"}.get(leaf, TOPICS.device("a", leaf))
    before = fleet.device("a")
    handlers.on_message(fleet.room, topic, data)
    after = fleet.device("a")
    assert (after.stamps, after.birth, after.status) == (before.stamps, before.birth, before.status)
    with fleet.room.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(Outgoing)) == 0
        assert session.scalar(select(func.count()).select_from(RefusalCount)) <= 4
