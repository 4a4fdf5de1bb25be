"""Joules are booked once, by purpose and source, and sums are sums of entries and nothing else."""

from math import fsum

import pytest
from fleet import JOB, Fleet, Opener

from aggregator import ledger, readers
from aggregator.store import Energy
from protocol.channel import Channel
from protocol.errors import Refusal
from protocol.messages import EnergySource, Purpose, Spent

MEASURED, MODELLED = EnergySource.MEASURED, EnergySource.MODELLED
SPENT = (Spent(Purpose.INFERENCE, 30.0, MODELLED), Spent(Purpose.IDLE, 500.25, MEASURED))


def _booked(fleet: Fleet, device: str) -> dict[tuple[str, str], float]:
    return {(row.purpose, row.source): row.energy_mj for row in fleet.rows(Energy) if row.device == device}


def test_an_update_books_what_its_device_tells_and_what_its_bytes_cost(open_fleet: Opener):
    """BF-081."""
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    payload = a.train(offer)
    a.upload(offer, payload, energy_mj=800.0, energy_source=MEASURED, fetched_bytes=12_000, spent=SPENT)
    assert a.receipt().refusal == ""
    air = Channel()
    assert _booked(fleet, "a") == {
        ("up", "modelled"): pytest.approx(air.up_mj(len(payload), JOB.distance_km)),
        ("down", "modelled"): pytest.approx(air.down_mj(12_000, [JOB.distance_km])),
        ("training", "measured"): 800.0,
        ("inference", "modelled"): 30.0,
        ("idle", "measured"): 500.25,
    }


def test_a_manifest_that_comes_again_is_not_booked_again(open_fleet: Opener):
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    payload = a.train(offer)
    a.upload(offer, payload, energy_mj=800.0)
    before = _booked(fleet, "a")
    a.upload(offer, payload, energy_mj=800.0)
    assert _booked(fleet, "a") == before


def test_a_refused_update_was_spent_all_the_same(open_fleet: Opener):
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    a.upload(offer, a.train(offer, recipe="fp32"), energy_mj=800.0)
    assert a.receipt().refusal == Refusal.WRONG_RECIPE
    assert _booked(fleet, "a")[("training", "modelled")] == 800.0


@pytest.mark.parametrize(
    "spent",
    [
        (Spent(Purpose.IDLE, 1.0, MEASURED), Spent(Purpose.IDLE, 1.0, MODELLED)),
        (Spent(Purpose.UP, 1.0, MEASURED),),
        (Spent(Purpose.DOWN, 1.0, MEASURED),),
    ],
)
def test_books_that_cannot_be_are_refused(open_fleet: Opener, spent: tuple[Spent, ...]):
    """BF-081."""
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    a.upload(offer, a.train(offer), spent=spent)
    assert a.receipt().refusal == Refusal.MALFORMED
    assert fleet.rows(Energy) == []


def test_a_broadcast_is_one_transmission_that_all_bear(open_fleet: Opener):
    fleet = open_fleet()
    devices = fleet.connected("a", "b", "c")
    fleet.run()
    offers = [device.offer() for device in devices]
    assert all(offer.broadcast for offer in offers)
    whole_mj = Channel().down_mj(offers[0].newest.payload_bytes, [JOB.distance_km])
    shares = [_booked(fleet, device.name)[("down", "modelled")] for device in devices]
    assert shares == [whole_mj / 3] * 3


def test_measured_and_modelled_are_never_one_entry(open_fleet: Opener):
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    wasted = (Spent(Purpose.TRAINING, 11.0, MODELLED),)
    a.upload(offer, a.train(offer), energy_mj=800.0, energy_source=MEASURED, spent=wasted)
    booked = _booked(fleet, "a")
    assert (booked["training", "measured"], booked["training", "modelled"]) == (800.0, 11.0)


def test_the_ledger_closes(open_fleet: Opener):
    """By purpose, by device, by round and in all: to 1e-9 of the sum of the entries."""
    fleet = open_fleet()
    devices = fleet.connected("a", "b", "c")
    fleet.run()
    for number, device in enumerate(devices):
        offer = device.offer()
        device.upload(offer, device.train(offer), energy_mj=0.1 + number, fetched_bytes=333 * number, spent=SPENT)
    fleet.run()
    rows = fleet.rows(Energy)
    with fleet.room.store.reading() as session:
        every, page = readers.energy_view(session, None, None)
        alone = [readers.energy_view(session, 1, device.name)[0].total_mj for device in devices]
    total = fsum(row.energy_mj for row in rows)
    assert len(rows) == len(page.rows) >= 15
    assert every.total_mj == pytest.approx(total, rel=1e-9)
    assert fsum(part.energy_mj for part in every.totals) == pytest.approx(total, rel=1e-9)
    assert fsum(alone) == pytest.approx(total, rel=1e-9)
    air = fsum(part.energy_mj for part in every.totals if part.purpose in ledger.AIR)
    assert air == pytest.approx(fsum(row.energy_mj for row in rows if row.purpose in {"up", "down"}), rel=1e-9)
