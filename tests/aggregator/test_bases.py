"""Base models by steps: chains that survive restarts and losses, and devices that come back after a long time."""

from dataclasses import replace

import pytest
from fleet import JOB, Fleet, Opener, collecting

from aggregator.downlink import Downlink
from aggregator.store import BaseStep
from protocol.codec.payload import Content, decode
from protocol.errors import Unsupported
from protocol.messages import Offer, Status
from protocol.reference import cheapest, moved, state_of

DELTA = replace(JOB, downlink="delta:stc:0.01", rounds=0)


def followed(fleet: Fleet, offer: Offer, held: dict[bytes, bytes]) -> bytes:
    """The base as a device with these states makes it; it must not need the whole."""
    steps = cheapest(offer.steps, offer.base, offer.base_bytes, held)
    assert steps
    state = held.get(steps[0].before)
    for step in steps:
        payload = fleet.room.blobs.get(step.digest.hex())
        assert len(payload) == step.payload_bytes
        state = state_of(payload) if state is None else moved(state, payload)
    assert state is not None
    return state


def next_offer(fleet: Fleet, name: str) -> Offer:
    """Play the round that is open, if one is, and take the offer of the next."""
    fleet.run()
    offer = fleet.handsets[name].offer()
    for device in fleet.handsets.values():
        if device.name == name or device.inbox:
            chosen = offer if device.name == name else device.offer()
            device.upload(chosen, device.train(chosen))
    fleet.deliver()
    return offer


def whole(fleet: Fleet, offer: Offer) -> bytes:
    return fleet.room.blobs.get(offer.base.hex())


@pytest.fixture
def fleet(open_fleet: Opener) -> Fleet:
    return open_fleet(DELTA)


def test_the_first_base_can_be_had_from_nothing_for_half_the_bytes(fleet: Fleet) -> None:
    """BF-028."""
    fleet.connected("a")
    offer = next_offer(fleet, "a")
    (step,) = offer.steps
    assert step.before == b""
    assert step.payload_bytes < 0.6 * offer.base_bytes
    assert followed(fleet, offer, {}) == whole(fleet, offer)


def test_the_next_one_is_a_step_of_what_changed(fleet: Fleet) -> None:
    """BF-028, BF-029."""
    fleet.connected("a")
    first, second = next_offer(fleet, "a"), next_offer(fleet, "a")
    last = second.steps[-1]
    assert last.before == first.base
    assert decode(fleet.room.blobs.get(last.digest.hex())).header.content is Content.DELTA
    assert last.payload_bytes < 0.1 * second.base_bytes
    assert followed(fleet, second, {first.base: whole(fleet, first)}) == whole(fleet, second)


def test_a_device_that_missed_twenty_rounds_comes_back_to_the_same_bits(fleet: Fleet) -> None:
    """BF-028, BF-029: the steps it missed are kept, and are fewer bytes than the whole."""
    fleet.connected("a")
    first = next_offer(fleet, "a")
    for _ in range(20):
        next_offer(fleet, "a")
    offer = next_offer(fleet, "a")
    assert offer.round == first.round + 21
    assert followed(fleet, offer, {first.base: whole(fleet, first)}) == whole(fleet, offer)


def test_steps_that_outweigh_the_whole_are_not_offered(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(DELTA, downlink="delta:uniform:8"))
    fleet.connected("a")
    for _ in range(8):
        offer = next_offer(fleet, "a")
        assert sum(step.payload_bytes for step in offer.steps) < offer.base_bytes
    assert len(offer.steps) < 8


def test_devices_of_one_precision_share_every_step(fleet: Fleet) -> None:
    a, b = fleet.connected("a", "b")
    (c,) = fleet.connected("c", precisions=("W2A8",))
    fleet.run()
    one, other, third = a.offer(), b.offer(), c.offer()
    assert one.steps == other.steps
    assert one.steps != third.steps
    assert len(fleet.rows(BaseStep)) == 2


def test_a_restart_goes_on_with_the_chain(fleet: Fleet) -> None:
    fleet.connected("a")
    first = next_offer(fleet, "a")
    fleet.restart()
    second = next_offer(fleet, "a")
    assert second.steps[-1].before == first.base


def test_a_lost_state_begins_a_new_chain(fleet: Fleet) -> None:
    """What is lost costs bytes, not the round."""
    fleet.connected("a")
    first = next_offer(fleet, "a")
    fleet.room.blobs.path(first.base.hex()).unlink()
    second = next_offer(fleet, "a")
    (step,) = second.steps
    assert step.before == b""
    assert followed(fleet, second, {}) == whole(fleet, second)


def test_a_base_asked_for_again_in_its_round_is_the_same(open_fleet: Opener) -> None:
    """A round that starved offers the same state to whoever comes later."""
    fleet, (a,) = collecting(open_fleet, "a", downlink=DELTA.downlink)
    offer = a.offer()
    a.say_state(Status.OFFLINE)
    for wait_s in (100.0, 20.0, 20.0):
        fleet.clock.pass_(wait_s)
        fleet.run()
    (b,) = fleet.connected("b")
    fleet.run()
    again = b.offer()
    assert (again.round, again.base, again.steps) == (offer.round, offer.base, offer.steps)
    assert len(fleet.rows(BaseStep)) == 1


def test_the_calibration_round_has_the_model_itself(open_fleet: Opener) -> None:
    """What is measured must be what is exported; a step only nears it."""
    fleet = open_fleet(replace(DELTA, rounds=1, calibrate_last=True))
    fleet.connected("a")
    next_offer(fleet, "a")
    offer = next_offer(fleet, "a")
    assert (offer.epochs, offer.steps) == (0, ())
    assert decode(whole(fleet, offer)).header.recipe == "half"


@pytest.mark.parametrize("text", ["sign", "delta:ef+sign", "delta:", "delta:dgc+topk:0.1", "eden:2"])
def test_a_way_down_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match=r"downlink|recipe"):
        Downlink.parse(text)


@pytest.mark.parametrize(
    "text", ["fp32", "half", "uniform:8", "delta:eden:2", "delta:stc:0.01+rc", "delta:step:0.0005+rc"]
)
def test_a_way_down_is_spelled_as_it_was_read(text: str) -> None:
    assert str(Downlink.parse(text)) == text
