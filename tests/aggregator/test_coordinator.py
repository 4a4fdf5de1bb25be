"""The thread that writes: commands in order, and trouble that holds a round up and stops nothing."""

import errno
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pytest
from fleet import Fleet
from mqtt_client import eventually
from sqlalchemy.exc import OperationalError

from aggregator import handlers
from aggregator.blobs import Blobs
from aggregator.broker import BrokerUrl
from aggregator.coordinator import Busy, Coordinator, is_disk_full
from aggregator.link import Link, Received
from aggregator.room import Room
from aggregator.store import Device
from protocol.signing import SigningKey


@contextmanager
def coordinating(fleet: Fleet, inbox: Queue[Any] | None = None) -> Iterator[Coordinator]:
    """A coordinator over a room, whose broker is absent; perhaps with something to do already."""
    inbox = Queue() if inbox is None else inbox
    link = Link(
        url=BrokerUrl("127.0.0.1", 1),
        topics=fleet.room.topics,
        shard="0",
        key=SigningKey(bytes(32)),
        boot=1,
        inbox=inbox,
        clock=fleet.clock.wall,
    )
    coordinator = Coordinator(fleet.room, link, inbox)
    thread = threading.Thread(target=coordinator.run)
    thread.start()
    try:
        yield coordinator
    finally:
        coordinator.stop()
        thread.join()


def test_commands_run_one_after_another_and_give_back_results_and_errors(fleet: Fleet) -> None:
    seen: list[int] = []

    def fail() -> None:
        raise KeyError("mine")

    with coordinating(fleet) as coordinator:
        assert coordinator.submit(lambda: threading.current_thread().name) != threading.current_thread().name
        threads = [
            threading.Thread(target=coordinator.submit, args=(lambda number=number: seen.append(number),))
            for number in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(KeyError, match="mine"):
            coordinator.submit(fail)
    assert sorted(seen) == list(range(50))
    with pytest.raises(Busy, match="stopping"):
        coordinator.submit(lambda: None)


def test_a_command_that_does_not_get_its_turn_is_never_done(fleet: Fleet) -> None:
    done: list[str] = []
    go = threading.Event()
    with coordinating(fleet) as coordinator:
        slow = threading.Thread(target=coordinator.submit, args=(lambda: go.wait(20),))
        slow.start()
        with pytest.raises(Busy, match="did not get to it"):
            coordinator.submit(lambda: done.append("late"), patience_s=0.1)
        go.set()
        slow.join()
        coordinator.submit(lambda: None)
    assert done == []


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full; make room, nothing accepted is lost"),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")), "is full; make room"),
        (ValueError("a bug"), "a bug"),
    ],
)
def test_a_full_disk_or_a_bug_holds_the_round_up_and_is_tried_again(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trouble: Exception,
    words: str,
) -> None:
    fleet.connected("pi-1")
    calls: list[int] = []
    put: Callable[[Blobs, bytes], str] = Blobs.put

    def failing_once(blobs: Blobs, data: bytes) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise trouble
        return put(blobs, data)

    monkeypatch.setattr(Blobs, "put", failing_once)
    with coordinating(fleet) as coordinator:
        eventually(lambda: fleet.state() == "offered", "the round after the trouble")
        assert coordinator.submit(lambda: "still there") == "still there"
    assert words in caplog.text
    assert "held up for 1 s" in caplog.text


def test_a_message_that_breaks_a_handler_is_logged_with_its_topic(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("aggregator.handlers.on_message", broken)
    with coordinating(fleet) as coordinator:
        coordinator._inbox.put(Received("bitfleet/v1/test/d/pi-7/birth", b""))
        assert coordinator.submit(lambda: "still there") == "still there"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "d/pi-7/birth" in record.message


def test_only_a_full_disk_is_a_full_disk() -> None:
    assert is_disk_full(OSError(errno.EDQUOT, ""))
    assert not is_disk_full(OSError(errno.EACCES, ""))
    assert not is_disk_full(OperationalError("x", {}, sqlite3.OperationalError("database is locked")))


def test_of_messages_that_came_together_only_the_broken_one_is_lost(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All of them are undone with it, and then handled one by one."""
    devices = fleet.join("pi-1", "pi-2", "pi-3")
    said: list[Received] = []
    real = handlers.on_message
    monkeypatch.setattr(handlers, "on_message", lambda _, topic, data: said.append(Received(topic, data)))
    for device in devices:
        device.connect()

    def broken(room: Room, topic: str, data: bytes) -> None:
        if "pi-2" in topic:
            raise RuntimeError("a bug")
        real(room, topic, data)

    monkeypatch.setattr(handlers, "on_message", broken)
    inbox: Queue[Any] = Queue()
    for message in said:
        inbox.put(message)
    with coordinating(fleet, inbox) as coordinator:
        coordinator.submit(lambda: None)
    assert {device.id: device.status for device in fleet.rows(Device)} == {
        "pi-1": "online",
        "pi-2": "offline",
        "pi-3": "online",
    }
    assert len([record for record in caplog.records if "pi-2" in record.message]) == 2, "its birth and its state"
