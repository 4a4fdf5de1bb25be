"""A disk that is nearly full: no round begins, and one goes on when there is room."""

import shutil
from typing import Any

import pytest
from fleet import Fleet, Opener

from aggregator import summaries
from aggregator.space import MB


def set_free(monkeypatch: pytest.MonkeyPatch, megabytes: int) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=megabytes * MB))


def status(fleet: Fleet) -> Any:
    with fleet.room.store.reading() as session:
        return summaries.status(session, fleet.room, "mqtt://localhost")


def test_no_round_begins_on_a_disk_that_is_nearly_full(
    open_fleet: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = open_fleet(keep_free_mb=200)
    (device,) = fleet.connected("a")
    set_free(monkeypatch, 199)
    fleet.run()
    fleet.run()
    assert fleet.state() == "none"
    assert status(fleet).paused_because.endswith("has 199 MB left, below keep_free_mb = 200: make room")
    set_free(monkeypatch, 201)
    fleet.run()
    assert fleet.state() == "collecting"
    set_free(monkeypatch, 1)
    device.deliver_update()
    fleet.run()
    assert fleet.version() == 1, "what has begun is brought to its end"
    told = [record.message for record in caplog.records if "round is opened" in record.message]
    assert len(told) == 1, "once, not on every turn"
