"""Updates that come late, and rounds that wait for nobody."""

from dataclasses import replace

import pytest
from fleet import JOB, Fleet, Handset, Opener

from aggregator import staleness
from aggregator.job import Job
from aggregator.store import Update
from protocol.messages import Offer, Receipt

LATE = replace(JOB, rounds=6, quorum=0.5, deadline_s=10.0, max_staleness=2)
ASYNC = replace(JOB, rounds=6, max_staleness=2, buffer=1)


@pytest.mark.parametrize(("samples", "age", "expected"), [(100, 0, 100), (100, 3, 50), (100, 1, 71), (1, 8, 1)])
def test_an_old_update_counts_for_fewer_pictures(samples: int, age: int, expected: int) -> None:
    assert staleness.weight(samples, age) == expected


def straggling(open_fleet: Opener, job: Job) -> tuple[Fleet, Handset, Offer]:
    """A fleet that has committed version 1 without `slow`, which was offered round 1."""
    fleet = open_fleet(job)
    quick, slow = fleet.connected("quick", "slow")
    fleet.run()
    offer = slow.take(Offer)[-1]
    quick.deliver_update()
    fleet.clock.pass_(11.0)
    fleet.run()
    assert fleet.version() == 1
    return fleet, slow, offer


def merged(fleet: Fleet) -> dict[tuple[str, int], int | None]:
    return {(update.device, update.round): update.merged for update in fleet.rows(Update)}


def test_a_late_update_goes_into_the_next_round(open_fleet: Opener) -> None:
    fleet, slow, offer = straggling(open_fleet, LATE)
    slow.take(Receipt)
    slow.upload(offer, slow.train(offer))
    assert slow.receipt().outcome == "accepted"
    assert merged(fleet)["slow", 1] is None
    for device in fleet.handsets.values():
        device.upload(newest := device.take(Offer)[-1], device.train(newest))
    fleet.run()
    assert merged(fleet) == {("quick", 1): 1, ("slow", 1): 2, ("quick", 2): 2, ("slow", 2): 2}


def test_without_a_buffer_it_is_refused_as_before(open_fleet: Opener) -> None:
    fleet, slow, offer = straggling(open_fleet, replace(LATE, max_staleness=0))
    slow.upload(offer, slow.train(offer))
    assert slow.receipt().refusal == "late"
    assert ("slow", 1) not in merged(fleet)


def test_what_is_too_old_is_refused(open_fleet: Opener) -> None:
    fleet, slow, offer = straggling(open_fleet, replace(LATE, max_staleness=1))
    fleet.handsets["quick"].deliver_update()
    fleet.clock.pass_(11.0)
    fleet.run()
    assert fleet.version() == 2
    slow.upload(offer, slow.train(offer))
    assert slow.receipt().refusal == "late"


def test_a_restart_merges_the_same_updates_to_the_same_bits(open_fleet: Opener) -> None:
    def play(*, restarts: bool) -> bytes:
        fleet, slow, offer = straggling(open_fleet, LATE)
        slow.upload(offer, slow.train(offer))
        if restarts:
            fleet.restart()
        fleet.handsets["quick"].deliver_update()
        fleet.clock.pass_(11.0)
        fleet.until("merging")
        if restarts:
            fleet.restart()
        fleet.run()
        return fleet.model().to_bytes()

    assert play(restarts=False) == play(restarts=True)


# --- asynchronous ---


def test_a_round_ends_with_the_first_update_and_asks_only_who_is_free(open_fleet: Opener) -> None:
    fleet = open_fleet(ASYNC)
    quick, slow = fleet.connected("quick", "slow")
    fleet.run()
    first = slow.take(Offer)[-1]
    for version in (1, 2):
        quick.deliver_update()
        fleet.run()
        assert fleet.version() == version
    assert slow.take(Offer) == [], "it is still at work"
    slow.upload(first, slow.train(first))
    fleet.run()
    assert fleet.version() == 3
    assert merged(fleet)["slow", 1] == 3
    assert slow.take(Offer)[-1].round == 4


def test_who_is_silent_too_long_is_given_up_and_asked_anew(open_fleet: Opener) -> None:
    fleet = open_fleet(ASYNC)
    quick, slow = fleet.connected("quick", "slow")
    fleet.run()
    slow.take(Offer)
    for _ in range(3):
        quick.deliver_update()
        fleet.run()
    assert [offer.round for offer in slow.take(Offer)] == [4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffer": 2}, "buffer = 2: expected 0 without max_staleness"),
        ({"buffer": 2, "max_staleness": 1, "per_round": 3}, "expected 0 without max_staleness, and with per_round"),
        ({"max_staleness": 1, "vote": True}, "max_staleness = 1: expected 0 with a vote"),
        ({"max_staleness": -1}, "max_staleness = -1"),
        ({"max_staleness": 1, "buffer": 1, "rates": "fedaq:1"}, "buffer = 1: expected 0 with rates"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    base = replace(JOB, recipe="sign") if "vote" in changes else JOB
    base = replace(JOB, recipe="uniform:8", downlink="uniform:8") if "rates" in changes else base
    with pytest.raises(ValueError, match=message):
        replace(base, **changes)
