"""Updates on their way in: every check, every stable code, one verdict each."""

import numpy as np
import pytest
from fleet import TOPICS, Fleet, Opener, offered, refused
from strategies import SMALL

from aggregator import handlers
from aggregator.job import Job
from aggregator.store import Update
from protocol.architecture import Tensors
from protocol.codec.payload import Content
from protocol.messages import Need, Receipt, Status
from protocol.precision import Precision
from protocol.signing import SigningKey

FP32_JOB = Job(architecture=SMALL.spec, rounds=1, recipe="fp32", deadline_s=100.0, extension_s=20.0)


def test_an_update_is_journalled_with_its_figures_and_receipted(fleet: Fleet) -> None:
    """BF-025: the receipt is for this task and digest."""
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.upload(offer, payload)
    receipt = a.receipt()
    assert (receipt.outcome, receipt.task, receipt.round) == ("accepted", offer.task, 1)
    (row,) = fleet.rows(Update)
    assert fleet.room.blobs.get(row.digest) == payload
    assert row.digest == receipt.digest.hex()
    assert (row.payload_bytes, row.samples, row.energy_source) == (len(payload), 100, "modelled")
    values = sum(spec.size for spec in SMALL.tensors(Precision.parse(offer.precision)))
    assert 4 * values < row.fp32_bytes < 4 * values + 200
    assert fleet.tasks() == {"a": "accepted"}


# --- manifests that do not belong to an open task ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"round": 2}, "wrong-round"),
        ({"base": bytes(32)}, "wrong-base"),
        ({"nonce": bytes(16)}, "unknown-task"),
        ({"task": "0" * 32}, "unknown-task"),
    ],
)
def test_a_manifest_that_is_not_the_offers_is_answered_and_the_task_stays_open(
    fleet: Fleet, change: dict[str, object], code: str
) -> None:
    """BF-023."""
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.upload(offer, payload, **change)
    assert refused(a, code).digest == a.manifest(offer, payload).digest
    assert fleet.tasks() == {"a": "offered"}
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


def test_a_task_of_another_device_is_unknown(fleet: Fleet) -> None:
    (_, offer), (b, _) = offered(fleet, "a", "b")
    b.upload(offer, b.train(offer))
    refused(b, "unknown-task")
    assert fleet.accepted() == []


def test_a_late_update_is_told_so_and_not_counted(open_fleet: Opener) -> None:
    """BF-023."""
    fleet = open_fleet(Job(architecture=SMALL.spec, recipe="sign", rounds=2, min_devices=2, quorum=0.5))
    (a, _), (b, offer) = offered(fleet, "a", "b")
    payload = b.train(offer)
    a.upload(_, a.train(_))
    fleet.clock.pass_(3601.0)
    fleet.until("merging")
    b.upload(offer, payload)
    refused(b, "late")
    fleet.run()
    b.upload(offer, payload)
    refused(b, "late")
    assert fleet.accepted() == ["a"]


def test_an_update_for_an_aborted_round_is_late(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    handlers.abort_round(fleet.room)
    a.upload(offer, a.train(offer))
    refused(a, "late")


def test_a_declined_task_takes_no_update(fleet: Fleet) -> None:
    (a, offer), _ = offered(fleet, "a", "b")
    a.decline(offer)
    a.upload(offer, a.train(offer))
    assert "declined" in refused(a, "unknown-task").reason


# --- envelopes that are not what they say ---


def test_a_foreign_sender_on_a_devices_topic_is_refused(fleet: Fleet) -> None:
    """BF-003."""
    (a, offer), (b, _) = offered(fleet, "a", "b")
    manifest = a.manifest(offer, a.train(offer))
    b.send(TOPICS.manifest("0", "a", offer.task), manifest)
    assert fleet.refusals() == {("a", "foreign-device"): 1}
    fleet.deliver()
    assert a.take(Receipt) == a.take(Need) == []


def test_a_forged_manifest_gets_no_answer(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    manifest = a.manifest(offer, a.train(offer))
    a.send(TOPICS.manifest("0", "a", offer.task), manifest, key=SigningKey.generate())
    assert fleet.refusals() == {("a", "forged"): 1}
    fleet.deliver()
    assert a.inbox == []


def test_a_manifest_moved_to_another_topic_is_forged(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    data = a.announce(a.manifest(offer, a.train(offer)))
    handlers.on_message(fleet.room, TOPICS.manifest("0", "a", "0" * 32), data)
    assert fleet.refusals() == {("a", "forged"): 1}


def test_a_replayed_manifest_gets_no_receipt_that_could_empty_the_outbox(fleet: Fleet) -> None:
    """BF-019: BF-016."""
    ((a, offer),) = offered(fleet)
    data = a.announce(a.manifest(offer, a.train(offer)))
    fleet.deliver()
    a.inbox.clear()
    handlers.on_message(fleet.room, TOPICS.manifest("0", "a", offer.task), data)
    fleet.deliver()
    assert a.inbox == []
    assert fleet.refusals() == {("a", "replayed"): 1}


def test_the_replay_guard_survives_a_restart(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    data = a.announce(a.manifest(offer, a.train(offer)))
    fleet.restart()
    handlers.on_message(fleet.room, TOPICS.manifest("0", "a", offer.task), data)
    assert fleet.refusals() == {("a", "replayed"): 1}


def test_a_revoked_device_is_told_so(fleet: Fleet) -> None:
    (a, offer), _ = offered(fleet, "a", "b")
    handlers.revoke(fleet.room, "a")
    a.upload(offer, a.train(offer))
    refused(a, "revoked")
    assert fleet.tasks()["a"] == "missed"


@pytest.mark.parametrize("length", [0, 1, 64, 65, 100])
def test_a_truncated_manifest_is_counted(fleet: Fleet, length: int) -> None:
    ((a, offer),) = offered(fleet)
    data = a.announce(a.manifest(offer, a.train(offer)))
    handlers.on_message(fleet.room, TOPICS.manifest("0", "a", offer.task), data[:length])
    assert set(fleet.refusals()) <= {("a", "incomplete"), ("a", "malformed"), ("a", "forged")}
    assert sum(fleet.refusals().values()) == 1


# --- payloads that are not what was asked for ---


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"precision": "fp32"}, "wrong-precision"),
        ({"recipe": "uniform:4"}, "wrong-recipe"),
        ({"seed": 5}, "wrong-recipe"),
        ({"content": Content.WEIGHTS}, "malformed"),
    ],
)
def test_a_payload_that_the_offer_did_not_ask_for_is_judged_once(
    fleet: Fleet, header: dict[str, object], code: str
) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer, **header)
    a.upload(offer, payload)
    first = refused(a, code)
    assert fleet.tasks() == {"a": "refused"}
    a.announce(a.manifest(offer, payload))
    assert a.receipt() == first
    assert fleet.refusals() == {("a", code): 1}


def test_a_payload_of_another_network_has_the_wrong_shape(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer).replace(b"classes=3", b"classes=4", 1)
    a.upload(offer, payload)
    refused(a, "wrong-shape")


def test_a_truncated_payload_is_incomplete(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    a.upload(offer, a.train(offer)[:-1])
    refused(a, "incomplete")


def test_a_payload_with_bytes_left_over_is_malformed(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    a.upload(offer, a.train(offer) + b"x")
    refused(a, "malformed")


def test_a_payload_of_an_unknown_version_is_unsupported(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = bytearray(a.train(offer))
    payload[2] = 9
    a.upload(offer, bytes(payload))
    refused(a, "unsupported")


def test_a_payload_larger_than_any_recipe_makes_is_refused_before_it_is_sent(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    a.announce(a.manifest(offer, a.train(offer), payload_bytes=1 << 29, chunk_bytes=1 << 16))
    refused(a, "too-large")
    assert fleet.room.uploads.announced_bytes == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(open_fleet: Opener, value: float) -> None:
    fleet = open_fleet(FP32_JOB)
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    hole = np.float32(value).tobytes()
    a.upload(offer, payload[:-4] + hole)
    receipt = a.receipt()
    assert receipt.outcome == "refused"
    assert "finite" in receipt.reason
    assert fleet.accepted() == []


def test_an_update_beyond_the_norm_limit_is_refused(open_fleet: Opener) -> None:
    fleet = open_fleet(FP32_JOB)
    ((a, offer),) = offered(fleet)

    def explode(tensors: Tensors) -> None:
        tensors["stem.conv.weight"][:] = 1e5

    a.upload(offer, a.train(offer, explode))
    assert "expected at most 10000" in refused(a, "norm").reason


@pytest.mark.parametrize("name", ["stem.conv.mean", "stem.conv.variance"])
def test_moments_that_leave_no_room_in_the_merge_are_refused(open_fleet: Opener, name: str) -> None:
    fleet = open_fleet(FP32_JOB)
    ((a, offer),) = offered(fleet)

    def explode(tensors: Tensors) -> None:
        tensors[name][:] = 1e20

    a.upload(offer, a.train(offer, explode))
    assert "64 bits" in refused(a, "norm").reason


def test_more_samples_than_the_merge_can_weigh_are_refused(open_fleet: Opener) -> None:
    fleet = open_fleet(FP32_JOB)
    ((a, offer),) = offered(fleet)
    a.upload(offer, a.train(offer), samples=1 << 32)
    refused(a, "norm")


# --- one verdict each ---


def test_an_accepted_update_sent_again_gets_its_receipt_and_counts_once(fleet: Fleet) -> None:
    """BF-026."""
    (a, offer), _ = offered(fleet, "a", "b")
    payload = a.train(offer)
    a.upload(offer, payload)
    first = a.receipt()
    a.upload(offer, payload)
    assert a.receipt() == first
    fleet.restart()
    a.upload(offer, payload)
    assert a.receipt() == first
    assert len(fleet.rows(Update)) == 1


def test_a_receipt_is_still_given_after_the_round(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.upload(offer, payload)
    first = a.receipt()
    fleet.run()
    assert fleet.state() == "announced"
    a.announce(a.manifest(offer, payload))
    assert a.receipt() == first


def test_another_payload_for_a_judged_task_does_not_count(fleet: Fleet) -> None:
    (a, offer), _ = offered(fleet, "a", "b")
    a.upload(offer, a.train(offer))
    a.receipt()

    def shift(tensors: Tensors) -> None:
        tensors["classifier.bias"] += 1.0

    a.upload(offer, a.train(offer, shift))
    refused(a, "late")
    assert len(fleet.rows(Update)) == 1


def test_an_update_of_a_device_that_went_offline_meanwhile_counts(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    payload = a.train(offer)
    a.say_state(Status.OFFLINE)
    a.upload(offer, payload)
    assert a.receipt().outcome == "accepted"


def test_an_empty_payload_is_never_decoded(fleet: Fleet) -> None:
    ((a, offer),) = offered(fleet)
    a.announce(a.manifest(offer, b"x", chunk_bytes=1))
    a.send_chunk(offer.task, b"x", 0, 1)
    refused(a, "incomplete")
