"""Rounds: the table of moves, a whole round, coming back, and what can go wrong."""

from dataclasses import replace

import pytest
from fleet import JOB, STRAIGHT, Fleet, Opener, collecting

from aggregator import handlers, outbox, rounds
from aggregator.merging import merge_journal
from aggregator.rounds import MOVES, IllegalMove
from aggregator.store import Export, Round, RoundState, Task
from export.errors import CheckFailed
from protocol.messages import ModelOffer, Offer, Outcome, Status
from protocol.messages import RoundState as RoundMessage

# --- the table ---


def test_every_state_has_its_row_and_moves_only_to_states() -> None:
    assert set(MOVES) == set(RoundState)
    assert set().union(*MOVES.values()) == set(RoundState) - {RoundState.PLANNED}


def test_every_state_can_reach_an_end() -> None:
    ends = {state for state in RoundState if not MOVES[state]}
    assert ends == {RoundState.ANNOUNCED, RoundState.ABORTED, RoundState.ROLLED_BACK}
    reaching = set(ends)
    for _ in RoundState:
        reaching |= {state for state in RoundState if MOVES[state] & reaching}
    assert reaching == set(RoundState)


def test_nothing_is_aborted_once_committed() -> None:
    over = {RoundState.COMMITTED, RoundState.ANNOUNCED, RoundState.ABORTED, RoundState.ROLLED_BACK}
    for state in over:
        assert RoundState.ABORTED not in MOVES[state]
    for state in set(RoundState) - over:
        assert RoundState.ABORTED in MOVES[state]


def test_an_illegal_move_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    fleet.connected("a")
    fleet.complete()
    with pytest.raises(IllegalMove, match="round 1 is announced"):
        rounds.abort(fleet.room, 1, "too late")
    assert fleet.state() == "announced"


# --- a whole round ---


def test_a_round_goes_straight_when_everyone_delivers(fleet: Fleet) -> None:
    fleet.connected("a", "b")
    fleet.complete()
    assert fleet.states() == STRAIGHT
    assert fleet.version() == 1
    assert fleet.accepted() == ["a", "b"]
    (export,) = fleet.rows(Export)
    assert (export.version, export.precision, export.accuracy) == (1, "W8A8", None)
    assert export.digest in fleet.room.blobs
    assert fleet.model().profiles.keys() == {"W8A8"}


def test_each_transition_is_one_step_of_advance(fleet: Fleet) -> None:
    fleet.connected("a")
    for expected in ("planned", "offered"):
        assert rounds.advance(fleet.room)
        assert fleet.state() == expected
    assert not rounds.advance(fleet.room)  # the offer is not sent yet
    fleet.deliver()
    assert rounds.advance(fleet.room)
    assert fleet.state() == "collecting"
    assert not rounds.advance(fleet.room)


def test_every_state_is_announced_as_a_retained_message(fleet: Fleet) -> None:
    fleet.connected("a")
    heard = []

    def listen(*_: object) -> None:
        with fleet.room.store.reading() as session:
            for row in outbox.pending(session):
                message = outbox.message_of(row)
                if isinstance(message, RoundMessage):
                    assert row.retain
                    heard.append((message.phase, message.model_version))
        fleet.deliver()

    fleet.room.on_transition = listen
    fleet.complete()
    assert heard == [(phase, int(phase in {"committed", "announced"})) for phase in STRAIGHT]


def test_devices_are_offered_the_model_of_their_precision_with_the_reason(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    (b,) = fleet.connected("b", precisions=("W1A8",))
    fleet.complete()
    exports = {export.precision: export for export in fleet.rows(Export)}
    for device, precision in ((a, "W8A8"), (b, "W1A8")):
        (offer,) = device.take(ModelOffer)
        assert (offer.version, offer.precision) == (1, precision)
        assert offer.digest.hex() == exports[precision].digest
        assert offer.model_bytes == exports[precision].model_bytes
        assert offer.reason.startswith(f"{precision} is the best it can run")


def test_a_job_ends_after_its_rounds_and_the_calibration_round(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=2, calibrate_last=True, learning_rate_decay=0.5, recipe="ef+sign"))
    (a,) = fleet.connected("a")
    offers = []
    for _ in range(3):
        fleet.run()
        offers.append(a.offer())
        a.upload(offers[-1], a.train(offers[-1]))
    fleet.run()
    assert [(offer.round, offer.epochs) for offer in offers] == [(1, 1), (2, 1), (3, 0)]
    assert [offer.learning_rate for offer in offers[:2]] == [0.1, 0.05]
    # A residual would move the weights that the last round measures.
    assert [offer.recipe for offer in offers] == ["ef+sign", "ef+sign", "sign"]
    assert [offer.calibrate_steps for offer in offers] == [True, False, False]
    assert fleet.version() == 3
    fleet.run()
    assert a.take(Offer) == []


def test_rounds_go_on_for_ever_when_the_job_says_so(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=0))
    fleet.connected("a")
    for version in (1, 2, 3):
        fleet.complete()
        assert fleet.version() == version


def test_a_round_waits_for_enough_devices(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, min_devices=2))
    fleet.connected("a")
    fleet.run()
    assert fleet.state() == "none"
    fleet.connected("b")
    fleet.run()
    assert fleet.state() == "collecting"


def test_a_paused_fleet_opens_no_round_until_resumed(fleet: Fleet) -> None:
    fleet.connected("a")
    handlers.pause(fleet.room)
    fleet.run()
    assert fleet.state() == "none"
    handlers.resume(fleet.room)
    fleet.run()
    assert fleet.state() == "collecting"


def test_devices_that_cannot_train_now_are_not_asked(fleet: Fleet) -> None:
    a, offline, inference, empty, old, _ = fleet.connected("a", "offline", "inference", "empty", "old", "revoked")
    offline.say_state(Status.OFFLINE)
    inference.say_birth(trains=False)
    empty.say_birth(samples=0)
    old.say_birth(codecs=("fp32",))
    handlers.revoke(fleet.room, "revoked")
    fleet.run()
    assert fleet.tasks() == {"a": "offered"}
    assert len(a.take(Offer)) == 1


def test_a_device_that_joins_during_a_round_waits_for_the_next(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=2))
    fleet.connected("a")
    fleet.run()
    fleet.connected("b")
    fleet.run()
    assert fleet.tasks() == {"a": "offered"}
    fleet.complete()
    assert {(task.round, task.device) for task in fleet.rows(Task)} == {(1, "a"), (2, "a"), (2, "b")}


# --- coming back ---


def test_a_device_that_comes_back_gets_its_offer_again_with_the_time_left(fleet: Fleet) -> None:
    """BF-021."""
    a, _ = fleet.connected("a", "b")
    fleet.run()
    first = a.offer()
    fleet.clock.pass_(30.0)
    a.connect()
    fleet.deliver()
    again = a.offer()
    assert again == replace(first, deadline_s=70.0, broadcast=False)
    a.say_birth()  # the same session: a new model was installed, nothing was lost
    fleet.deliver()
    assert a.take(Offer) == []


def test_a_device_that_delivered_gets_no_offer_when_it_comes_back(fleet: Fleet) -> None:
    a, _ = fleet.connected("a", "b")
    fleet.run()
    a.deliver_update()
    a.connect()
    fleet.deliver()
    assert a.take(Offer) == []


# --- failures ---


def test_an_aborted_round_leaves_the_model_and_the_next_begins_after_a_pause(open_fleet: Opener) -> None:
    fleet, (a,) = collecting(open_fleet, "a", rounds=2)
    before = fleet.model().to_bytes()
    assert handlers.abort_round(fleet.room) == 1
    assert fleet.model().to_bytes() == before
    assert fleet.tasks() == {"a": "missed"}
    fleet.run()
    assert fleet.state() == "aborted"
    fleet.clock.pass_(20.0)
    fleet.run()
    assert (fleet.state(), len(fleet.rows(Round))) == ("collecting", 2)
    a.deliver_update()
    fleet.run()
    assert fleet.version() == 2


def test_a_candidate_that_is_not_finite_aborts_the_round(fleet: Fleet) -> None:
    fleet.connected("a")
    fleet.run()
    fleet.handsets["a"].deliver_update()
    fleet.until("validating")
    candidate = merge_journal(fleet.room, fleet.rows(Round)[0]).candidate
    candidate.shared["classifier.bias"][:] = float("nan")
    broken = fleet.room.blobs.put(candidate.to_bytes())
    with fleet.room.store.transaction() as session:
        session.get_one(Round, 1).candidate = broken
    rounds.advance(fleet.room)
    (row,) = fleet.rows(Round)
    assert row.state == "aborted"
    assert "classifier.bias" in row.note
    assert "finite" in row.note
    assert fleet.version() == 0


def test_an_export_that_differs_from_its_reference_aborts_the_round(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(*_: object, **__: object) -> None:
        raise CheckFailed("picture 3: logits differ")

    fleet.connected("a")
    fleet.run()
    fleet.handsets["a"].deliver_update()
    monkeypatch.setattr("export.batch.export_model", differ)
    fleet.run()
    (row,) = fleet.rows(Round)
    assert (row.state, row.note) == ("aborted", "validation failed: picture 3: logits differ")
    assert (fleet.version(), fleet.rows(Export)) == (0, [])


@pytest.mark.parametrize(
    "recipe", ["eden:1", "stosign", "ef+stc:0.05+rc", "fedzip:z=0.2,k=3", "uniform:4+huffman", "step:0.002+rc"]
)
def test_every_kind_of_codec_makes_a_round(open_fleet: Opener, recipe: str) -> None:
    """BF-045: and all devices of a round draw from one seed, where they draw at all."""
    fleet = open_fleet(replace(JOB, recipe=recipe))
    phones = fleet.connected("a", "b")
    fleet.run()
    offers = [phone.offer() for phone in phones]
    assert len({offer.codec_seed for offer in offers}) == 1
    assert (offers[0].codec_seed > 0) == (recipe == "eden:1")
    for phone, offer in zip(phones, offers, strict=True):
        phone.upload(offer, phone.train(offer))
        assert phone.receipt().outcome is Outcome.ACCEPTED
    fleet.run()
    assert fleet.state() == "announced"


def test_a_damaged_update_in_the_journal_aborts_the_round(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    fleet.run()
    digest = a.deliver_update().digest.hex()
    fleet.room.blobs.path(digest).write_bytes(b"damaged")
    fleet.run()
    (row,) = fleet.rows(Round)
    assert row.state == "aborted"
    assert digest in row.note


def test_a_disk_that_is_full_while_merging_leaves_the_round_to_be_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (a,) = fleet.connected("a")
    fleet.run()
    a.deliver_update()
    fleet.until("merging")

    def full(_: bytes) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(fleet.room.blobs, "put", full)
        with pytest.raises(OSError, match="No space"):
            rounds.advance(fleet.room)
    assert fleet.state() == "merging"
    fleet.run()
    assert fleet.state() == "announced"
