"""Killed at any state, failed at any write: the round finishes with the same bits, and nothing counts twice."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from fleet import JOB, STRAIGHT, Fleet, Opener
from sqlalchemy.exc import DBAPIError

from aggregator import rounds
from aggregator.store import Model


def undisturbed(open_fleet: Opener) -> bytes:
    fleet = open_fleet(replace(JOB, quorum=1.0))
    fleet.connected("a", "b", "c")
    fleet.complete()
    return fleet.model().to_bytes()


@pytest.mark.parametrize("state", STRAIGHT)
def test_a_restart_at_any_state_finishes_with_the_same_bits(open_fleet: Opener, state: str) -> None:
    fleet = open_fleet(replace(JOB, quorum=1.0))
    devices = fleet.connected("a", "b", "c")
    fleet.until(state if state in {"planned", "offered"} else "collecting")
    if state == "collecting":
        devices[1].deliver_update()
    if state not in {"planned", "offered", "collecting"}:
        for device in devices:
            device.deliver_update()
        fleet.until(state)
    fleet.restart()
    for device in devices:
        device.connect()
    fleet.complete()
    assert fleet.state() == "announced"
    assert fleet.accepted() == ["a", "b", "c"]
    assert len(fleet.rows(Model)) == 2
    assert fleet.model().to_bytes() == undisturbed(open_fleet)


@pytest.mark.parametrize("state", ["none", *STRAIGHT[:-1]])
def test_a_transition_is_whole_or_did_not_happen(open_fleet: Opener, state: str) -> None:
    """From each state, the last write of the transition fails: nothing of it may be left."""
    fleet = open_fleet(replace(JOB, quorum=1.0))
    devices = fleet.connected("a", "b", "c")
    fleet.until(state if state in {"none", "planned", "offered"} else "collecting")
    if state not in {"none", "planned", "offered"}:
        for device in devices:
            device.deliver_update()
        fleet.until(state)
    fleet.deliver()
    before = dump(fleet)
    with fleet.room.store.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON outbox WHEN NEW.message_type = 5"
            " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    with pytest.raises(DBAPIError, match="disk full"):
        rounds.advance(fleet.room)
    with fleet.room.store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")
    assert dump(fleet) == before
    fleet.complete()
    assert fleet.model().to_bytes() == undisturbed(open_fleet)


def dump(fleet: Fleet) -> list[str]:
    """The whole database as statements."""
    with closing(sqlite3.connect(fleet.room.store.path)) as connection:
        return list(connection.iterdump())


def test_merging_the_journal_does_not_depend_on_who_came_first(open_fleet: Opener) -> None:
    models = []
    for names in (("a", "b", "c"), ("c", "a", "b")):
        fleet = open_fleet(replace(JOB, quorum=1.0))
        fleet.connected("a", "b", "c")
        fleet.run()
        for name in names:
            fleet.handsets[name].deliver_update()
        fleet.run()
        models.append(fleet.model().to_bytes())
    assert models[0] == models[1]
