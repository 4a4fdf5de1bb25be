"""Quarantine: by hand, by what a device did, how it ends, and what a device in it may still do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fleet import JOB, Fleet, Opener, collecting, refused

from aggregator import handlers, readers
from aggregator.faults import CommandRefused, Fault
from aggregator.store import Update
from protocol.architecture import Tensors
from protocol.messages import ModelOffer, Offer, Outcome

NAMES = ("a", "b", "c", "d", "e", "f")


def scaled(tensors: Tensors) -> None:
    for name in tensors:
        if not name.endswith((".mean", ".variance")):
            tensors[name] *= np.float32(50)


def play(fleet: Fleet, *liars: str) -> None:
    """A round in which some devices send fifty times what they learned."""
    fleet.run()
    fleet.clock.pass_(1.0)
    for name, device in fleet.handsets.items():
        offers = device.take(Offer)
        if offers:
            device.upload(offers[-1], device.train(offers[-1], spoil=scaled if name in liars else len))
    fleet.run()


def lying(open_fleet: Opener, **job: Any) -> Fleet:
    fleet = open_fleet(replace(JOB, rounds=0, recipe="fp32", merge="clip:median", quarantine="2/3", **job))
    fleet.connected(*NAMES)
    return fleet


def invited(fleet: Fleet) -> set[str]:
    """Who has an offer in the round that is open now."""
    fleet.run()
    return {name for name, device in fleet.handsets.items() if any(isinstance(each, Offer) for each in device.inbox)}


def detail(fleet: Fleet, name: str) -> Any:
    with fleet.room.store.reading() as session:
        return readers.device_detail(session, name, fleet.clock.wall())


def test_one_accident_is_forgiven_and_two_of_three_are_not(open_fleet: Opener) -> None:
    fleet = lying(open_fleet)
    play(fleet, "a")
    assert invited(fleet) == set(NAMES)
    assert len(detail(fleet, "a").quarantine.causes) == 1
    play(fleet)
    play(fleet, "a")
    assert invited(fleet) == set(NAMES) - {"a"}
    found = detail(fleet, "a").quarantine
    assert found.reason.startswith("cause for doubt in 2 of its last 3 rounds, the last: its norm is")
    assert [cause.round for cause in found.causes] == [1, 3]
    assert found.until == 0
    assert detail(fleet, "b").quarantine.causes == []


def test_nothing_is_quarantined_where_that_is_off(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=0, recipe="fp32"))
    fleet.connected(*NAMES)
    for _ in range(3):
        play(fleet, "a")
    assert invited(fleet) == set(NAMES)
    assert len(detail(fleet, "a").quarantine.causes) == 3  # seen all the same


def test_refused_updates_are_causes_and_a_late_one_is_none(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=0, recipe="fp32", norm_limit=5.0, quarantine="2/2", quorum=0.1))
    (a, b) = fleet.connected("a", "b")
    for number in (1, 2):
        fleet.run()
        offer = a.offer()
        a.upload(offer, a.train(offer, spoil=scaled))
        refused(a, "norm")
        assert bool(fleet.device("a").quarantined) == (number == 2)
        b.deliver_update()
        fleet.run()
    assert invited(fleet) == {"b"}
    assert "norm of the update is" in detail(fleet, "a").quarantine.reason


def test_time_lets_in_on_probation_and_one_more_cause_is_enough(open_fleet: Opener) -> None:
    fleet = lying(open_fleet, quarantine_rest_s=1000.0)
    play(fleet, "a")
    play(fleet, "a")
    assert invited(fleet) == set(NAMES) - {"a"}
    fleet.clock.pass_(1000.0)
    play(fleet)  # was open already
    assert "a" in invited(fleet)
    assert detail(fleet, "a").quarantine.on_probation
    play(fleet, "a")
    assert "a" not in invited(fleet)


def test_an_operator_shuts_out_at_once_and_lets_in_with_a_clean_slate(open_fleet: Opener) -> None:
    fleet = lying(open_fleet)
    play(fleet, "a")
    assert invited(fleet) == set(NAMES)
    handlers.shut_out(fleet.room, "a", "lens is broken")
    play(fleet)
    assert "a" not in invited(fleet)
    assert detail(fleet, "a").quarantine.reason == "lens is broken"
    fleet.clock.pass_(1.0)
    handlers.release(fleet.room, "a")
    play(fleet)
    play(fleet, "a")
    assert "a" in invited(fleet)  # the one before the release counts no more
    assert not detail(fleet, "a").quarantine.on_probation


def test_a_device_in_quarantine_is_told_so_and_keeps_its_model(open_fleet: Opener) -> None:
    """BF-082."""
    fleet, (a, b) = collecting(open_fleet, "a", "b")
    offer = a.offer()
    handlers.shut_out(fleet.room, "a", "lens is broken")
    a.upload(offer, a.train(offer))
    receipt = refused(a, "quarantined")
    assert receipt.reason == "device a is in quarantine: lens is broken"
    a.connect()
    fleet.deliver()
    assert a.take(Offer) == []
    b.deliver_update()
    fleet.run()
    assert fleet.accepted() == ["b"]
    assert a.take(ModelOffer)


def test_what_waits_to_be_merged_of_a_device_that_is_shut_out_is_left_out(open_fleet: Opener) -> None:
    fleet, (a, b) = collecting(open_fleet, "a", "b", recipe="fp32")
    offer = a.offer()
    payload = a.train(offer)
    a.upload(offer, payload)
    handlers.shut_out(fleet.room, "a", "lens is broken")
    a.announce(a.manifest(offer, payload))
    assert a.receipt().outcome is Outcome.ACCEPTED  # it was judged before
    b.deliver_update()
    fleet.run()
    alone, (other,) = collecting(open_fleet, "b", recipe="fp32")
    other.deliver_update()
    alone.run()
    assert fleet.model().to_bytes() == alone.model().to_bytes()


def test_quarantine_survives_a_restart_and_a_kill_while_merging_counts_nothing_twice(open_fleet: Opener) -> None:
    fleet = lying(open_fleet)
    play(fleet, "a")
    fleet.run()
    for name, device in fleet.handsets.items():
        offer = device.offer()
        device.upload(offer, device.train(offer, spoil=scaled if name == "a" else len))
    fleet.until("validating")
    fleet.restart()
    assert fleet.device("a").quarantined
    fleet.run()
    assert sum(bool(row.doubt) for row in fleet.rows(Update)) == 2


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (lambda room: handlers.release(room, "a"), Fault.CONFLICT),
        (lambda room: handlers.release(room, "ghost"), Fault.NOT_FOUND),
        (lambda room: handlers.shut_out(room, "ghost", "why"), Fault.NOT_FOUND),
        (lambda room: handlers.shut_out(room, "a", ""), Fault.INVALID),
    ],
)
def test_what_cannot_be_done_is_said(fleet: Fleet, command: Any, fault: Fault) -> None:
    fleet.connected("a")
    with pytest.raises(CommandRefused) as told:
        command(fleet.room)
    assert told.value.fault is fault
