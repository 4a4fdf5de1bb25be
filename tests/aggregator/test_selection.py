"""Whom a round asks: turns, a few more than are wanted, and nobody whose energy is spent."""

from dataclasses import replace

import pytest
from fleet import JOB, Opener

from aggregator import handlers, selection
from aggregator.selection import History, choose, deadline_s
from aggregator.store import Device, Round

NOBODY_KNOWN: dict[str, History] = {}


def rows(*names: str) -> list[Device]:
    return [Device(id=name, public_key=b"", joined_at=0.0) for name in names]


def names_of(chosen: list[Device]) -> str:
    return "".join(device.id for device in chosen)


DRAW = {name: index for index, name in enumerate("badce")}


def test_everybody_is_asked_where_no_number_is_wanted() -> None:
    assert names_of(choose(rows(*"abcde"), 0, NOBODY_KNOWN, DRAW, 99)) == "abcde"
    assert names_of(choose(rows(*"abcde"), 0, NOBODY_KNOWN, DRAW, 2)) == "ab", "the first two that are drawn"


def test_those_who_took_part_least_are_next() -> None:
    known = {"a": History(2, 2), "b": History(1, 1), "c": History(2, 2)}
    assert names_of(choose(rows(*"abc"), 1, known, DRAW, 99)) == "b"
    assert names_of(choose(rows(*"abcd"), 2, known, DRAW, 99)) == "bd"


def test_as_many_more_are_asked_as_dropped_out_before_but_never_more_than_twice() -> None:
    half = dict.fromkeys("abcde", History(0, 1))
    assert History(1, 2).reliability == pytest.approx(0.6)
    assert len(choose(rows(*"abcde"), 1, {name: History(1, 2) for name in "abcde"}, DRAW, 99)) == 2
    assert len(choose(rows(*"abcde"), 2, half, DRAW, 99)) == 4
    assert len(choose(rows(*"abcde"), 2, NOBODY_KNOWN, DRAW, 99)) == 2


def test_a_deadline_follows_from_what_devices_took() -> None:
    known = {
        name: History(3, 3, (part_s, part_s, 900.0)) for name, part_s in zip("abcde", (10, 20, 30, 40, 50), strict=True)
    }
    assert deadline_s(rows(*"abcde"), known, 2.0, 3600.0) == 80.0
    assert deadline_s(rows(*"abcde"), known, 2.0, 60.0) == 60.0, "never later than the job's"
    assert deadline_s(rows(*"abcde"), known, 0.0, 3600.0) == 3600.0
    assert deadline_s(rows(*"axyz"), known, 2.0, 3600.0) == 3600.0, "most are not known"
    assert deadline_s(rows("a"), known, 0.1, 3600.0) == selection.SHORTEST_S


def test_a_round_ends_when_it_has_what_it_wants(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=3, per_round=1))
    fleet.connected("a", "b", "c")
    for _ in range(3):
        fleet.complete()
    assert fleet.accepted() == ["a", "b", "c"], "each had a turn"
    assert fleet.version() == 3


def test_who_drops_out_is_counted_on_less(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=2, per_round=1, quorum=0.5, deadline_s=10.0))
    fleet.connected("a", "b")
    fleet.run()
    silent = next(iter(fleet.tasks()))
    fleet.clock.pass_(11.0)
    fleet.run()
    with fleet.room.store.reading() as session:
        assert fleet.tasks()[silent] in {"offered", "missed"}
        assert selection.histories(session, 3).get(silent, selection.NEW).answered == 0


def test_who_has_spent_its_day_is_not_asked_before_tomorrow(open_fleet: Opener) -> None:
    fleet = open_fleet(replace(JOB, rounds=3))
    (device,) = fleet.connected("a")
    handlers.set_budget(fleet.room, "a", 1e-6)
    fleet.complete()
    assert [row.number for row in fleet.rows(Round)] == [1]
    fleet.clock.pass_(selection.DAY_S + 1)
    device.connect()
    fleet.run()
    assert [row.number for row in fleet.rows(Round)] == [1, 2]
