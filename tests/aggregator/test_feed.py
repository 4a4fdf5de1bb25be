"""The feed tells every change once it is on disk, in order, to whoever listens; who is too slow is sent away."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from desks import ADMIN, desk_of, is_problem
from fleet import Fleet, trained

from aggregator import changes, handlers
from aggregator.app import GOODBYE_WITHIN_S, build_app, serve_http
from aggregator.changes import Change
from aggregator.feed import BEHIND, KEPT, Feed
from aggregator.store import MAIN, Device

WITHIN_S = 20.0


@pytest.fixture
def told(fleet: Fleet) -> list[Change]:
    """What is told of a fleet from its first day on."""
    found: list[Change] = []
    changes.watch(fleet.room.store, found.append)
    return found


def test_a_round_is_told_from_joining_to_its_exports(fleet: Fleet, told: list[Change]) -> None:
    trained(fleet)
    rounds = [change.facts["state"] for change in told if change.kind == "round"]
    assert rounds == [state for _, state in fleet.transitions], "once each, after it is on disk"
    (update,) = [change.facts for change in told if change.kind == "update"]
    assert (update["round"], update["device"], update["accepted"], update["code"]) == (1, "a", True, "")
    assert [change.facts["state"] for change in told if change.kind == "task"] == ["offered", "uploading", "accepted"]
    (export,) = [change.facts for change in told if change.kind == "export"]
    assert [change.facts["version"] for change in told if change.kind == "model"] == [1]
    assert export["precision"] == "W8A8"
    devices = [change.facts for change in told if change.kind == "device"]
    assert [device["status"] for device in devices][:1] == ["offline"]
    last = {
        "device": "a",
        "status": "online",
        "quarantined": "",
        "lifecycle": "",
        "progress": 0.0,
        "precision": "W8A8",
        "job": MAIN,
    }
    assert devices[-1] == last
    json.dumps([change.facts for change in told])


def test_pauses_and_revocations_are_told(fleet: Fleet, told: list[Change]) -> None:
    fleet.join("a")
    handlers.pause(fleet.room)
    handlers.resume(fleet.room)
    handlers.revoke(fleet.room, "a")
    assert [change.facts["paused"] for change in told if change.kind == "fleet"] == [True, False]
    assert told[-1].facts["status"] == "revoked"


def test_everybody_who_watches_is_told_once(fleet: Fleet, told: list[Change]) -> None:
    others: list[Change] = []
    changes.watch(fleet.room.store, others.append)
    handlers.pause(fleet.room)
    assert told == others == [Change("fleet", {"job": MAIN, "paused": True})]


def test_changes_in_one_transaction_are_told_when_all_of_it_is_on_disk(fleet: Fleet, told: list[Change]) -> None:
    with fleet.room.store.together():
        handlers.pause(fleet.room)
        assert told == []
    assert [change.kind for change in told] == ["fleet"]


def test_what_is_undone_is_not_told(fleet: Fleet, told: list[Change]) -> None:
    fleet.join("a")
    told.clear()
    with fleet.room.store.transaction() as session:
        session.get_one(Device, "a").revoked = True
        session.flush()
        session.rollback()
    handlers.pause(fleet.room)
    assert [change.kind for change in told] == ["fleet"]


# --- listeners ---


def count(number: int) -> Change:
    return Change("test", {"number": number})


async def heard(feed: Feed, after: str = "") -> list[tuple[str, Any]]:
    """What a listener hears of a feed that is closed once it listens."""
    with feed.listening(after) as listener:
        feed.close()
        return [(item.id, item.change.kind) async for item in listener]


def test_a_new_listener_learns_where_it_stands_and_one_that_was_away_goes_on() -> None:
    feed = Feed(7)
    assert asyncio.run(heard(feed)) == [("7-0", "hello")]
    for number in range(3):
        feed.tell(count(number))
    assert asyncio.run(heard(feed)) == [("7-3", "hello")]
    assert asyncio.run(heard(feed, "7-1")) == [("7-2", "test"), ("7-3", "test")]
    assert asyncio.run(heard(feed, "7-3")) == []


@pytest.mark.parametrize("after", ["6-1", "7-1", "7-9999999", "x", "é"])
def test_who_has_missed_something_is_told_so(after: str) -> None:
    feed = Feed(7)
    for number in range(KEPT + 1):
        feed.tell(count(number))
    assert asyncio.run(heard(feed, after)) == [(f"7-{KEPT + 1}", "reset")]


def test_a_listener_that_falls_behind_is_sent_away_and_holds_no_memory() -> None:
    async def listen() -> list[Any]:
        feed = Feed(1)
        with feed.listening() as listener:
            for number in range(BEHIND + 10):
                feed.tell(count(number))
            await asyncio.sleep(0)
            assert listener.behind
            return [item async for item in listener]

    assert asyncio.run(listen()) == []


# --- over HTTP ---


@pytest.fixture
def url(fleet: Fleet) -> Iterator[str]:
    feed = Feed(3)
    changes.watch(fleet.room.store, feed.tell)
    with serve_http(build_app(desk_of(fleet, feed=feed)), "127.0.0.1", 0) as url:
        yield url


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield event
            event = {}


def stream(url: str, **headers: str) -> Any:
    return httpx.stream("GET", f"{url}/api/v1/events", headers=headers, trust_env=False, timeout=WITHIN_S)


def test_changes_are_server_sent_events_with_ids_to_resume_from(url: str, fleet: Fleet) -> None:
    with stream(url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = events(answer.iter_lines())
        assert next(heard) == {"event": "hello", "data": "{}", "id": "3-0"}
        fleet.join("a")
        first = next(heard)
        assert (first["event"], json.loads(first["data"])["device"]) == ("device", "a")
    handlers.pause(fleet.room)
    with stream(url, **{"Last-Event-ID": first["id"]}) as answer:
        assert next(events(answer.iter_lines())) == {
            "event": "fleet",
            "data": '{"job": "main", "paused": true}',
            "id": "3-2",
        }


def test_a_listener_does_not_hold_up_the_end(fleet: Fleet) -> None:
    with ExitStack() as stack:
        with serve_http(build_app(desk_of(fleet)), "127.0.0.1", 0) as url:
            lines = stack.enter_context(stream(url)).iter_lines()
            next(lines)
            ends = time.monotonic()
        assert time.monotonic() - ends < GOODBYE_WITHIN_S, "it was closed, not cut off"
        assert list(lines)[-1] == "", "a whole event was the last"


def test_events_need_the_token_where_reading_does(fleet: Fleet) -> None:
    with serve_http(build_app(desk_of(fleet, open_reads=False)), "127.0.0.1", 0) as url:
        is_problem(httpx.get(f"{url}/api/v1/events", trust_env=False), 401, "admin-token")
        with stream(url, **ADMIN) as answer:
            assert answer.status_code == 200
