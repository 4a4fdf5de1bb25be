"""Who takes part, at which precision, and what is offered."""

from dataclasses import replace

import numpy as np
import pytest
from fleet import JOB, STRAIGHT, Fleet, Opener
from hypothesis import given
from hypothesis import strategies as st

from aggregator import joining, planning
from aggregator.allocate.trial import trial
from aggregator.model import GlobalModel
from aggregator.room import HoldOut
from aggregator.store import Export, Task
from protocol.channel import Channel
from protocol.codec.payload import decode
from protocol.energy import inference_energy, training_energy_mj
from protocol.messages import Cost, EnergySource, ModelOffer
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
        drawn = [tuple(device.id for device in planning.invited(session, fleet.room, n, {})) for n in range(20)]
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


# --- what is decided for devices, as it lies in the store ---


def test_a_device_slower_than_it_may_be_gets_another_precision(fleet: Fleet) -> None:
    """BF-080."""
    slow = Cost("W8A8", 31.0, 1.0, EnergySource.MEASURED)
    (a,) = fleet.connected("a")
    a.say_birth(max_latency_ms=20.0, costs=(slow,))
    device = fleet.device("a")
    assert (device.precision, device.reason) == ("W4A8", "W8A8 takes 31 ms, its limit is 20")
    a.say_birth(max_latency_ms=0.0)
    assert fleet.device("a").precision == "W8A8"


def test_a_measurement_against_ten_times_its_history_is_flagged_until_the_device_joins_anew(fleet: Fleet) -> None:
    def measured(energy_mj: float) -> tuple[Cost, ...]:
        return (Cost("W8A8", 5.0, energy_mj, EnergySource.MEASURED),)

    (a,) = fleet.connected("a")
    a.say_birth(budget_j_per_day=5.0, costs=measured(4.0))
    a.say_birth(costs=measured(40.0))
    a.say_birth()
    device = fleet.device("a")
    assert (device.precision, device.decision["history_mj"]) == ("W8A8", {"W8A8": 4.0})
    assert device.decision["doubts"] == [
        "W8A8 at 40 mJ is 10 times more than the 4 mJ it measured before: not believed"
    ]
    assert device.reason.endswith(device.decision["doubts"][0])
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    joining.join(fleet.room, device="a", public_key=a.key.public.raw, token=token)
    a.connect()
    device = fleet.device("a")
    assert (device.precision, device.decision["doubts"]) == ("W4A8", [])


def test_recipes_and_epochs_are_told_each_device_and_merge_in_one_round(open_fleet: Opener) -> None:
    """What a small budget leaves buys fewer epochs and fewer bits; updates of both kinds make one model."""
    job = replace(JOB, recipe="uniform:8", recipes=("eden:1",), epochs=1, epoch_choices=(3,), rounds_per_day=1e6)
    fleet = open_fleet(job)
    rich, poor = fleet.connected("rich", "poor")
    training_j = 1e6 * training_energy_mj(job.network, 100) / 1000
    inference_j = 1000 * inference_energy(job.network, Precision(1, 8)).total_mj / 1000
    sending_j = 1e6 * Channel().up_mj(trial(job.architecture, "eden:1").payload_bytes, job.distance_km) / 1000
    poor.say_birth(budget_j_per_day=1.5 * training_j + 2 * inference_j + sending_j)
    fleet.run()
    told = {device.name: device.offer() for device in (rich, poor)}
    assert {name: (offer.recipe, offer.epochs) for name, offer in told.items()} == {
        "rich": ("uniform:8", 3),
        "poor": ("eden:1", 1),
    }
    assert (told["rich"].codec_seed, told["poor"].codec_seed > 0) == (0, True)
    for device in (rich, poor):
        device.upload(told[device.name], device.train(told[device.name]))
        assert device.receipt().refusal == ""
    fleet.run()
    assert fleet.states() == STRAIGHT


def test_training_counts_with_what_the_device_last_measured(open_fleet: Opener) -> None:
    job = replace(JOB, rounds=2, epochs=2, rounds_per_day=10.0)
    fleet = open_fleet(job)
    (a,) = fleet.connected("a")
    fleet.run()
    before = fleet.device("a").decision
    offer = a.offer()
    a.upload(offer, a.train(offer), energy_mj=7000.0, energy_source=EnergySource.MEASURED)
    fleet.run()
    after = fleet.device("a").decision
    assert (before["training_source"], after["training_source"]) == ("modelled", "measured")
    # 7 J were two epochs and a forward pass, a third of one, over 100 pictures; ten rounds a day of two epochs each
    assert after["ways"][0]["training_j"] == pytest.approx(10 * 2 * 7.0 / (2 + 1 / 3))


def test_without_choices_every_device_does_what_the_job_says(open_fleet: Opener) -> None:
    fleet = open_fleet()
    (a,) = fleet.connected("a")
    fleet.run()
    offer = a.offer()
    assert (offer.recipe, offer.epochs, fleet.device("a").decision["recipe"]) == ("sign", 1, "sign")


def test_who_comes_later_gets_what_the_fleets_limit_leaves(open_fleet: Opener) -> None:
    j_per_day = {name: inference_energy(JOB.network, Precision.parse(name)).total_mj for name in ("W8A8", "W1A8")}
    fleet = open_fleet(replace(JOB, fleet_j_per_day=1.001 * (j_per_day["W8A8"] + j_per_day["W1A8"])))
    fleet.connected("a", "b")
    assert (fleet.device("a").precision, fleet.device("b").precision) == ("W8A8", "W1A8")
    assert "within the fleet's" in fleet.device("b").reason
    fleet.connected("c")
    assert fleet.device("c").decision["feasible"] is False
    assert "of the fleet" in fleet.device("c").reason


def test_ratings_of_exports_decide_between_precisions(open_fleet: Opener) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (16, *JOB.network.input_shape), dtype=np.uint8)
    fleet = open_fleet(replace(JOB, rounds=2), hold_out=HoldOut(pictures, np.zeros(16, dtype=np.int64)))
    (a,) = fleet.connected("a")
    fleet.run()
    a.deliver_update()
    fleet.run()
    (export,) = fleet.rows(Export)
    a.say_birth()
    assert fleet.device("a").decision["needs"][0]["accuracy_source"] == "prior", "nothing new, nothing decided"
    a.say_birth(samples=200)
    needs = fleet.device("a").decision["needs"]
    assert (needs[0]["accuracy"], needs[0]["accuracy_source"]) == (export.accuracy, "rated")
    assert {need["accuracy_source"] for need in needs[1:]} == {"prior"}
