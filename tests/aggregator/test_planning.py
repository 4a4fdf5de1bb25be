"""Who takes part, at which precision, and what is offered."""

from dataclasses import replace

import pytest
from fleet import JOB, Fleet, Opener
from hypothesis import given
from hypothesis import strategies as st

from aggregator import planning
from aggregator.model import GlobalModel
from aggregator.store import Task
from protocol.codec.payload import decode
from protocol.messages import ModelOffer
from protocol.networks import parse
from protocol.precision import Precision


def test_an_offer_says_everything_the_job_says(open_fleet: Opener) -> None:
    """BF-022: the base is the blob whose SHA-256 the offer names."""
    fleet = open_fleet(replace(JOB, epochs=3, batch=8, learning_rate=0.2, recipe="uniform:4", downlink="uniform:8"))
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    assert (offer.round, offer.architecture, offer.precision) == (1, JOB.architecture, "W8A8")
    assert (offer.epochs, offer.batch, offer.learning_rate) == (3, 8, 0.2)
    assert (offer.recipe, offer.shard, offer.deadline_s) == ("uniform:4", "0", 100.0)
    assert offer.calibrate_steps
    assert offer.table == parse(JOB.architecture).digest
    base = fleet.room.blobs.get(offer.base.hex())
    assert len(base) == offer.base_bytes
    assert decode(base).header.recipe == "uniform:8"


def test_devices_of_one_precision_share_a_base_and_no_secret(fleet: Fleet) -> None:
    a, b = fleet.connected("a", "b")
    fleet.run()
    one, other = a.offer(), b.offer()
    assert one.base == other.base
    assert len({one.task, other.task}) == len({one.nonce, other.nonce}) == len({one.seed, other.seed}) == 2


def test_what_devices_are_told_to_draw_depends_on_seed_round_and_name_alone(open_fleet: Opener) -> None:
    def seeds(seed: int) -> list[int]:
        fleet = open_fleet(replace(JOB, seed=seed))
        devices = fleet.connected("a", "b")
        fleet.run()
        return [device.offer().seed for device in devices]

    assert seeds(1) == seeds(1)
    assert set(seeds(1)).isdisjoint(seeds(2))


def test_a_base_of_an_untrained_precision_is_derived(open_fleet: Opener) -> None:
    fleet = open_fleet()
    (a,) = fleet.connected("a", precisions=("W2A8",))
    fleet.run()
    base = decode(fleet.room.blobs.get(a.offer().base.hex()))
    assert base.header.precision == "W2A8"
    fresh = GlobalModel.fresh(JOB.architecture, JOB.seed)
    assert base.tensors.keys() == fresh.tensors(Precision(2, 8)).keys()


def test_steps_are_calibrated_in_the_first_round_of_each_precision(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=0, min_devices=1))
    (a,) = fleet.connected("a")
    fleet.run()
    a.deliver_update()
    (b,) = fleet.connected("b", precisions=("W1A8",))
    fleet.run()
    assert (a.offer().calibrate_steps, b.offer().calibrate_steps) == (False, True)


def test_nothing_is_calibrated_when_the_job_says_so(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, calibrate_first=False))
    (a,) = fleet.connected("a")
    fleet.run()
    assert not a.offer().calibrate_steps


def test_a_device_that_does_not_train_runs_what_others_trained(open_fleet: Opener) -> None:
    fleet = open_fleet()
    (a,) = fleet.connected("a", precisions=("W4A8",))
    (display,) = fleet.connected("display")
    display.say_birth(trains=False)
    fleet.run()
    a.deliver_update()
    fleet.run()
    assert fleet.device("display").precision == "W4A8"
    (offer,) = display.take(ModelOffer)
    assert offer.precision == "W4A8"


def test_a_large_fleet_is_drawn_from_anew_each_round(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_UPDATES", 3)
    fleet.connected(*"abcdefgh")
    with fleet.room.store.reading() as session:
        drawn = [tuple(device.id for device in planning.invited(session, fleet.room, n)) for n in range(20)]
    assert {len(names) for names in drawn} == {3}
    assert set().union(*drawn) == set("abcdefgh")
    assert all(list(names) == sorted(names) for names in drawn)


@given(number=st.integers(0, 1 << 31), name=st.text(max_size=20))
def test_seeds_fit_the_wire(number: int, name: str) -> None:
    assert 0 <= planning.seed_of(JOB, number, name) < 1 << 63


def test_an_offers_fields_are_kept_with_its_task(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    (task,) = fleet.rows(Task)
    assert (task.id, task.nonce, task.base, task.recipe) == (offer.task, offer.nonce, offer.base.hex(), offer.recipe)
