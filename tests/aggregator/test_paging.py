"""Lists in pages: every row once, in order, whatever comes in between; and no cursor but ours is taken."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from desks import ADMIN, desk_of, is_problem
from fleet import Fleet

from aggregator.app import build_app, serve_http
from aggregator.client import Client, ClientError, following
from aggregator.store import Device, Energy, Model, Round, RoundState, Task, TaskState, Update
from aggregator.tables import rounds as table_of_rounds

LISTS = {
    "devices": lambda row: row["id"],
    "rounds": lambda row: row["number"],
    "rounds?newest_first=true": lambda row: -row["number"],
    "updates": lambda row: (row["received_at"], row["task"]),
    "updates?device=pi-1": lambda row: row["received_at"],
    "updates?round=2": lambda row: row["task"],
    "models": lambda row: -row["version"],
}
DEVICES, ROUNDS = [f"pi-{number}" for number in range(5)], range(1, 8)


@pytest.fixture
def url(fleet: Fleet) -> Iterator[str]:
    """A fleet with five devices and seven rounds that never were, on a real port."""
    populate(fleet)
    with serve_http(build_app(desk_of(fleet)), "127.0.0.1", 0) as url:
        yield url


def populate(fleet: Fleet) -> None:
    with fleet.room.store.transaction() as session:
        session.add_all(Device(id=name, public_key=b"", joined_at=0.0) for name in DEVICES)
        for number in ROUNDS:
            session.add(Round(number=number, state=RoundState.ANNOUNCED, base_version=number - 1, opened_at=0.0))
            session.add(Model(version=number, digest="0" * 64, made_at=float(number)))
        session.flush()
        for number in ROUNDS:
            for name in DEVICES:
                _add_update(session, number, name)
                energy = {"purpose": "up", "source": "modelled", "energy_mj": 0.1 * number}
                session.add(Energy(round=number, device=name, **energy))


def _add_update(session: Any, number: int, name: str) -> None:
    task = f"{name}.{number}"
    coding = {"precision": "W8A8", "recipe": "sign", "base": "", "nonce": b"", "offer": b""}
    session.add(Task(id=task, round=number, device=name, state=TaskState.ACCEPTED, **coding))
    session.flush()
    facts = {"digest": "0" * 64, "payload_bytes": 1, "samples": 1, "loss": 1.0, "accuracy": 0.5, "train_s": 1.0}
    told = {"energy_mj": 1.0, "energy_source": "modelled", "received_at": float(number)}
    session.add(Update(task=task, round=number, device=name, accepted=True, **facts, **told))


def pages(url: str, path: str, limit: int) -> Iterator[list[dict[str, Any]]]:
    path = f"{path}{'&' if '?' in path else '?'}limit={limit}"
    while path:
        answer = httpx.get(f"{url}/api/v1/{path}", trust_env=False)
        assert answer.status_code == 200, answer.text
        yield answer.json()
        path = following(path, answer.headers.get("link", ""))


def test_a_list_in_pages_is_the_list(url: str) -> None:
    for path, key in LISTS.items():
        (whole,) = pages(url, path, 1000)
        assert whole == sorted(whole, key=key), path
        for limit in (1, 3, len(whole)):
            found = list(pages(url, path, limit))
            assert [row for page in found for row in page] == whole, f"{path} by {limit}"
            assert all(len(page) == limit for page in found[:-1])


def test_rows_that_come_in_between_move_nothing(url: str, fleet: Fleet) -> None:
    walk = pages(url, "devices", 2)
    assert [row["id"] for row in next(walk)] == ["pi-0", "pi-1"]
    with fleet.room.store.transaction() as session:
        session.add_all(Device(id=name, public_key=b"", joined_at=0.0) for name in ("a", "pi-11"))
    assert [row["id"] for page in walk for row in page] == ["pi-11", "pi-2", "pi-3", "pi-4"]


def test_the_ledger_comes_in_pages_with_the_sums_of_all(url: str) -> None:
    client = Client(url)
    whole = client.get("/energy?limit=1000")
    assert len(whole["entries"]) == 35
    assert whole["total_mj"] == pytest.approx(sum(entry["energy_mj"] for entry in whole["entries"]), rel=1e-12)
    assert client.get("/energy?limit=2")["totals"] == whole["totals"]
    assert client.every("/energy?limit=8", "entries") == whole


def test_the_command_line_follows_every_page(url: str) -> None:
    found = Client(url).every("/rounds?limit=2")
    assert [row["number"] for row in found] == list(ROUNDS)
    assert table_of_rounds(found)
    with pytest.raises(ClientError, match="limit"):
        Client(url).every("/rounds?limit=0")


def cursor(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


BAD = ["x", "é", "####", cursor(7), cursor([]), cursor(["7"]), cursor([7, 7]), cursor([1 << 70]), cursor([True])]


@pytest.mark.parametrize("given", BAD)
def test_a_cursor_that_no_page_gave_is_refused(url: str, given: str) -> None:
    answer = httpx.get(f"{url}/api/v1/rounds", params={"cursor": given}, trust_env=False)
    is_problem(answer, 422, "cursor")


def test_a_cursor_of_another_list_or_of_strange_letters_is_refused(url: str) -> None:
    for path, given in (("devices", cursor([7])), ("devices", cursor(["\ud800"])), ("updates", cursor(["pi-1"]))):
        answer = httpx.get(f"{url}/api/v1/{path}", params={"cursor": given}, headers=ADMIN, trust_env=False)
        is_problem(answer, 422, "Link header")


@pytest.mark.parametrize("limit", [0, -1, 1001, "many"])
def test_a_limit_out_of_bounds_is_refused(url: str, limit: object) -> None:
    is_problem(httpx.get(f"{url}/api/v1/devices", params={"limit": str(limit)}, trust_env=False), 422, "limit")
