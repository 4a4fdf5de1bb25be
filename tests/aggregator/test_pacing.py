"""Rates in the product: decided once a round, kept with it, followed by every device, and the same after a restart."""

from dataclasses import replace

import pytest
from fleet import JOB, STRAIGHT, Fleet, Opener

from aggregator import pacing
from aggregator.job import Job
from aggregator.rates.base import from_plain
from aggregator.store import Pause, Round
from protocol.codec.recipe import Recipe
from protocol.errors import Unsupported

ROUNDS = 4
JOULES = 0.05


def _paced(rates: str, **changes: object) -> Job:
    return replace(JOB, rounds=ROUNDS, rates=rates, recipe="uniform:8", downlink="uniform:8", **changes)


def _play(fleet: Fleet) -> list[str]:
    """A round: the recipes that devices were offered."""
    fleet.run()
    told = []
    for device in fleet.handsets.values():
        offer = device.offer()
        device.upload(offer, device.train(offer))
        assert device.receipt().refusal == ""
        told.append(offer.recipe)
    fleet.run()
    return told


@pytest.mark.parametrize("rates", ["feddq:0.01", "adaquantfl:2", "dadaquant:1", f"fedaq:{JOULES}", f"best:{JOULES}+rc"])
def test_every_policy_trains_a_fleet(open_fleet: Opener, rates: str):
    fleet = open_fleet(_paced(rates))
    fleet.connected("a", "b")
    for number in range(1, ROUNDS + 1):
        fleet.run()
        coding = fleet.rows(Round)[number - 1].coding
        for device in fleet.handsets.values():
            offer = device.offer()
            assert offer.recipe == coding["up"][device.name]
            device.upload(offer, device.train(offer))
            assert device.receipt().refusal == ""
        fleet.run()
    assert [state for _, state in fleet.transitions[-len(STRAIGHT) :]] == STRAIGHT
    kept = [row.coding for row in fleet.rows(Round)]
    assert all(coding["reason"] and from_plain(coding["updates"]) for coding in kept)


def test_fedaq_keeps_its_budget_over_all_rounds(open_fleet: Opener):
    fleet = open_fleet(_paced(f"fedaq:{JOULES}"))
    fleet.connected("a", "b")
    for _ in range(ROUNDS):
        fleet.run()
        for device in fleet.handsets.values():
            device.deliver_update()
        fleet.run()
    with fleet.room.store.reading() as session:
        spent = [sum(pacing.air_mj(session, fleet.room, number)) / 1e3 for number in range(1, ROUNDS + 1)]
    assert 0 < sum(spent) <= JOULES * ROUNDS
    widths = [Recipe.parse(next(iter(row.coding["up"].values()))).rate for row in fleet.rows(Round)]
    assert all(1 <= width <= 8 for width in widths)


def test_a_restart_in_a_round_changes_nothing(open_fleet: Opener):
    fleet = open_fleet(_paced(f"fedaq:{JOULES}"))
    a, b = fleet.connected("a", "b")
    fleet.run()
    offers = a.offer(), b.offer()
    before = fleet.rows(Round)[0].coding
    fleet.restart()
    for device, offer in zip((a, b), offers, strict=True):
        device.connect()
        fleet.run()
        assert device.offer().recipe == offer.recipe
        device.upload(offer, device.train(offer))
    fleet.run()
    after = fleet.rows(Round)[0].coding
    assert {name: after[name] for name in before} == before


def test_a_budget_that_is_too_small_pauses_the_fleet_and_says_so(open_fleet: Opener):
    fleet = open_fleet(_paced("fedaq:0.000001"))
    fleet.connected("a")
    fleet.run()
    assert fleet.rows(Round) == []
    with fleet.room.store.reading() as session:
        why = session.get_one(Pause, ()).because
    assert "the smallest that works is" in why


def test_nothing_is_kept_where_nothing_is_adapted(open_fleet: Opener):
    fleet = open_fleet(replace(JOB, rounds=1))
    fleet.connected("a")
    assert _play(fleet) == ["sign"]
    assert fleet.rows(Round)[0].coding == {}


def test_the_calibration_round_is_nobodys_to_decide(open_fleet: Opener):
    fleet = open_fleet(replace(_paced("feddq:0.01"), rounds=1, calibrate_last=True))
    fleet.connected("a")
    assert (_play(fleet), _play(fleet)) == (["step:0.01"], ["uniform:8"])
    first, last = (row.coding for row in fleet.rows(Round))
    assert first["up"] == {"a": "step:0.01"}
    assert last == {}


def test_a_policy_that_is_none_is_no_job():
    with pytest.raises(Unsupported, match="rates 'wishes'"):
        replace(JOB, rates="wishes")
