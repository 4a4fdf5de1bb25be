"""A window of the aggregator for tests of the HTTP door: a real room, whose commands run at once or never."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet import Fleet

from aggregator.coordinator import Busy
from aggregator.desk import Desk

TOKEN = "the-admin-token"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}


def run_at_once(run: Callable[[], Any], patience_s: float = 0.0) -> Any:
    return run()


def never(run: Callable[[], Any], patience_s: float = 0.0) -> Any:
    raise Busy("busy; try again")


def desk_of(fleet: Fleet, **changes: Any) -> Desk:
    desk = Desk(
        room=fleet.room,
        submit=run_at_once,
        connected=lambda: True,
        admin_token=TOKEN,
        open_reads=True,
        broker_for=lambda host: f"mqtt://{host}:1883",
    )
    return replace(desk, **changes)


def is_problem(answer: Any, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert words in body["detail"]
