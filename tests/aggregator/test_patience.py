"""How long a round waits: deadline, quorum, one extension, starvation, and clocks that jump."""

from dataclasses import replace

import pytest
from fleet import STRAIGHT, Opener, collecting

from protocol.messages import Offer, Status


def test_a_quorum_at_the_deadline_is_enough_and_the_rest_is_missed(open_fleet: Opener) -> None:
    fleet, (a, _, c) = collecting(open_fleet, "a", "b", "c", quorum=0.6)
    a.deliver_update()
    c.deliver_update()
    fleet.run()
    assert fleet.state() == "collecting"
    fleet.clock.pass_(99.0)
    fleet.run()
    assert fleet.state() == "collecting"
    fleet.clock.pass_(1.0)
    fleet.run()
    assert fleet.states() == STRAIGHT
    assert fleet.tasks() == {"a": "accepted", "b": "missed", "c": "accepted"}


def test_a_missed_quorum_extends_once_and_closes_as_soon_as_it_is_reached(open_fleet: Opener) -> None:
    fleet, (a, b, _) = collecting(open_fleet, "a", "b", "c", quorum=0.6)
    a.deliver_update()
    fleet.clock.pass_(100.0)
    fleet.run()
    assert fleet.state() == "extended"
    first, again = b.take(Offer)
    assert again == replace(first, deadline_s=20.0, broadcast=False)
    b.upload(again, b.train(again))
    fleet.run()
    assert fleet.state() == "announced"
    assert fleet.states()[2:5] == ["collecting", "extended", "merging"]


def test_a_starved_round_keeps_what_it_has_and_asks_the_rest_again(open_fleet: Opener) -> None:
    fleet, (a, b, c) = collecting(open_fleet, "a", "b", "c", quorum=1.0)
    first = b.offer()
    a.deliver_update()
    c.say_state(Status.OFFLINE)
    fleet.clock.pass_(100.0)
    fleet.run()
    fleet.clock.pass_(20.0)
    fleet.run()
    assert fleet.state() == "starved"
    b.inbox.clear()
    fleet.clock.pass_(20.0)
    fleet.run()
    assert fleet.state() == "collecting"
    assert fleet.tasks() == {"a": "accepted", "b": "offered", "c": "missed"}
    assert a.take(Offer) == []
    again = b.offer()
    assert (again.task, again.nonce, again.base) == (first.task, first.nonce, first.base)
    b.upload(again, b.train(again))
    fleet.run()
    assert fleet.state() == "announced"
    assert fleet.accepted() == ["a", "b"]


def test_updates_that_come_while_a_round_starves_may_complete_it(open_fleet: Opener) -> None:
    fleet, (a, b) = collecting(open_fleet, "a", "b", quorum=1.0)
    a.deliver_update()
    fleet.clock.pass_(100.0)
    fleet.run()
    fleet.clock.pass_(20.0)
    fleet.run()
    assert fleet.state() == "starved"
    b.deliver_update()
    fleet.run()
    assert fleet.state() == "announced"
    assert fleet.states()[-4:] == ["merging", "validating", "committed", "announced"]


def test_a_starved_round_whose_devices_are_gone_takes_new_ones(open_fleet: Opener) -> None:
    fleet, (a,) = collecting(open_fleet, "a")
    a.say_state(Status.OFFLINE)
    for wait_s in (100.0, 20.0, 20.0):
        fleet.clock.pass_(wait_s)
        fleet.run()
    assert fleet.state() == "starved"
    (b,) = fleet.connected("b")
    fleet.run()
    assert b.deliver_update().outcome == "accepted"
    fleet.run()
    assert fleet.state() == "announced"


def test_a_missed_device_that_returns_to_its_round_still_counts(open_fleet: Opener) -> None:
    fleet, (a, b, c) = collecting(open_fleet, "a", "b", "c", quorum=1.0)
    offer = c.offer()
    a.deliver_update()
    c.say_state(Status.OFFLINE)
    for wait_s in (100.0, 20.0, 20.0):
        fleet.clock.pass_(wait_s)
        fleet.run()
    assert fleet.tasks()["c"] == "missed"
    c.connect()
    fleet.deliver()
    assert c.offer().task == offer.task
    c.upload(offer, c.train(offer))
    b.deliver_update()
    fleet.run()
    assert fleet.accepted() == ["a", "b", "c"]


def test_a_round_that_everyone_declines_starves_and_asks_again_in_a_new_task(open_fleet: Opener) -> None:
    fleet, (a,) = collecting(open_fleet, "a")
    first = a.offer()
    a.decline(first, retry_after_s=50.0)
    fleet.run()
    assert fleet.state() == "starved"
    fleet.clock.pass_(49.0)
    fleet.run()
    assert fleet.state() == "starved"
    fleet.clock.pass_(1.0)
    fleet.run()
    again = a.offer()
    assert again.task != first.task
    a.upload(again, a.train(again))
    fleet.run()
    assert fleet.state() == "announced"


def test_a_round_with_a_decline_merges_once_the_others_delivered(open_fleet: Opener) -> None:
    fleet, (a, b) = collecting(open_fleet, "a", "b", quorum=1.0)
    a.decline(a.offer())
    b.deliver_update()
    fleet.run()
    assert fleet.state() == "announced"


def test_a_round_whose_only_update_is_refused_starves(open_fleet: Opener) -> None:
    fleet, (a,) = collecting(open_fleet, "a")
    offer = a.offer()
    a.upload(offer, a.train(offer)[:-1])
    assert a.receipt().refusal == "incomplete"
    fleet.run()
    assert fleet.state() == "starved"
    fleet.clock.pass_(20.0)
    fleet.run()
    assert a.deliver_update().outcome == "accepted"
    fleet.run()
    assert fleet.state() == "announced"


@pytest.mark.parametrize("jump_s", [1e6, -1e6, 365 * 86400.0])
def test_a_wall_clock_that_jumps_moves_no_deadline(open_fleet: Opener, jump_s: float) -> None:
    fleet, (_, b) = collecting(open_fleet, "a", "b")
    b.deliver_update()
    fleet.run()
    fleet.clock.wall_s += jump_s
    fleet.clock.pass_(99.0)
    fleet.run()
    assert fleet.state() == "collecting"
    fleet.clock.pass_(1.0)
    fleet.run()
    assert fleet.state() == "announced"


def test_a_restart_goes_on_with_the_time_that_is_left(open_fleet: Opener) -> None:
    fleet, (a, _) = collecting(open_fleet, "a", "b")
    a.deliver_update()
    fleet.clock.wall_s += 60.0  # the aggregator was off for a minute
    fleet.restart()
    fleet.run()
    fleet.clock.pass_(39.0)
    fleet.run()
    assert fleet.state() == "collecting"
    fleet.clock.pass_(1.0)
    fleet.run()
    assert fleet.state() == "announced"


def test_a_clock_set_back_during_a_restart_waits_no_longer_than_a_whole_deadline(open_fleet: Opener) -> None:
    fleet, (a, _) = collecting(open_fleet, "a", "b")
    a.deliver_update()
    fleet.clock.wall_s -= 1e7
    fleet.restart()
    fleet.run()
    fleet.clock.pass_(100.0)
    fleet.run()
    assert fleet.state() == "announced"
