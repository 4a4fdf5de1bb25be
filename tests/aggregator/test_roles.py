"""Who may do what at the HTTP door, and what is written down about it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from desks import ADMIN, TOKEN, desk_of, is_problem
from fastapi.routing import APIRoute
from fleet import Fleet

from aggregator import audit, users
from aggregator.app import ROUTERS, build_app, serve_http
from aggregator.faults import CommandRefused, Fault
from aggregator.roles import GIVEN, LEAST, LOCAL, NOBODY, Actor, Role, who
from aggregator.store import Audit, Device, Fact, User
from aggregator.throttle import ADDRESSES_AT_MOST, WRONG_AT_MOST, Throttle

Opener = Callable[..., httpx.Client]
PARTS = {"name": "pi-1", "number": "1", "task": "none", "version": "0", "token": "none", "digest": "0" * 64}
BODIES = {
    "create_token": {},
    "set_group": {"group": "kitchen"},
    "set_budget": {"joules_per_day": 5.0},
    "shut_out": {"reason": "it lies"},
    "add_user": {"name": "grace", "role": "viewer"},
}


@pytest.fixture
def client_of() -> Iterator[Opener]:
    """Opens the door of a fleet on a real port."""
    with ExitStack() as stack:

        def open_(fleet: Fleet, **changes: Any) -> httpx.Client:
            url = stack.enter_context(serve_http(build_app(desk_of(fleet, **changes)), "127.0.0.1", 0))
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False))

        yield open_


ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
COMMANDS = [route for route in ROUTES if route.methods & {"POST", "PUT", "DELETE"} and route.name != "join"]


def ask(client: httpx.Client, route: APIRoute, token: str) -> int:
    """The status of a request that is as good as it gets."""
    path = route.path.format(**PARTS)
    method = min(route.methods)
    body = {"json": BODIES.get(route.name, {})} if method in {"POST", "PUT"} else {}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with client.stream(method, path, headers=headers, **body) as answer:
        return answer.status_code


def test_every_route_states_its_least_role_and_keeps_to_it(client_of: Opener, fleet: Fleet) -> None:
    fleet.join("pi-1")
    assert {route.name for route in ROUTES} == set(LEAST)
    client = client_of(fleet, open_reads=False)
    tokens = {role: users.add_user(fleet.room, f"a-{role}", role) for role in GIVEN}
    for route in sorted(ROUTES, key=lambda route: route.name == "revoke"):
        least = LEAST[route.name]
        expected = {} if least in {Role.ANYONE, Role.DEVICE} else {"": 401}
        for role in GIVEN:
            if not Actor("", role).may(least):
                expected[role] = 403
        found = {
            role: status
            for role in ("", *GIVEN)
            if (status := ask(client, route, tokens.get(Role(role), "") if role else "")) in {401, 403}
            and route.name != "join"  # there 403 is the join token's
        }
        assert found == expected, route.name


def test_reads_are_open_on_this_machine_and_commands_are_not(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    assert client.get("/api/v1/devices").status_code == 200
    assert client.get("/api/v1/tokens").status_code == 401
    is_problem(client.post("/api/v1/rounds/pause"), 401, "user add")


def test_a_token_that_was_taken_back_opens_nothing(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet, open_reads=False)
    answer = client.post("/api/v1/users", json={"name": "grace", "role": "viewer"}, headers=ADMIN)
    mine = {"Authorization": f"Bearer {answer.json()['token']}"}
    assert client.get("/api/v1/status", headers=mine).status_code == 200
    is_problem(client.post("/api/v1/rounds/pause", headers=mine), 403, "grace is viewer: this is for operators")
    assert [user["name"] for user in client.get("/api/v1/users", headers=ADMIN).json()] == ["grace"]
    assert client.delete("/api/v1/users/grace", headers=ADMIN).status_code == 204
    assert client.get("/api/v1/status", headers=mine).status_code == 401


def test_of_a_users_token_only_the_digest_is_kept(fleet: Fleet) -> None:
    token = users.add_user(fleet.room, "grace", "operator")
    assert token.encode() not in fleet.room.store.path.read_bytes()
    with fleet.room.store.reading() as session:
        assert who(session, token, TOKEN) == Actor("grace", Role.OPERATOR)
        assert who(session, TOKEN, TOKEN) == LOCAL
        assert who(session, token[:-1], TOKEN) == who(session, "", TOKEN) == NOBODY
    for name, role, fault in (
        ("grace", "viewer", Fault.CONFLICT),
        ("ada", "device", Fault.INVALID),
        ("ada", "", Fault.INVALID),
        ("A da", "viewer", Fault.INVALID),
    ):
        with pytest.raises(CommandRefused) as refused:
            users.add_user(fleet.room, name, role)
        assert refused.value.fault is fault
    assert [row.name for row in fleet.rows(User)] == ["grace"]


def test_who_tries_many_tokens_is_not_listened_to_for_a_while(client_of: Opener, fleet: Fleet) -> None:
    now = [100.0]
    client = client_of(fleet, throttle=Throttle(lambda: now[0]))
    wrong = {"Authorization": "Bearer wrong"}
    for _ in range(WRONG_AT_MOST):
        assert client.post("/api/v1/rounds/pause", headers=wrong).status_code == 401
    answer = client.post("/api/v1/rounds/pause", headers=ADMIN)
    is_problem(answer, 429, "too many wrong tokens")
    assert answer.headers["Retry-After"] == "60"
    assert client.get("/api/v1/status").status_code == 200, "who shows none is not meant"
    now[0] += 61.0
    assert client.post("/api/v1/rounds/pause", headers=ADMIN).status_code == 204


def test_a_throttle_forgets_addresses_beyond_its_bound() -> None:
    throttle = Throttle(lambda: 1.0)
    for number in range(ADDRESSES_AT_MOST + 10):
        throttle.wrong(str(number))
    assert len(throttle._wrong) == ADDRESSES_AT_MOST


def test_commands_are_written_down_with_who_and_what_and_without_secrets(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    fleet.join("pi-1")
    token = users.add_user(fleet.room, "grace", "operator")
    grace = {"Authorization": f"Bearer {token}"}
    made = client.post("/api/v1/tokens", json={"uses": 2, "group": "kitchen"}, headers=grace).json()["token"]
    client.put("/api/v1/devices/pi-1/budget", json={"joules_per_day": 5.0}, headers=grace)
    client.put("/api/v1/devices/ghost/budget", json={"joules_per_day": 5.0}, headers=grace)
    client.post("/api/v1/devices/pi-1/revoke", headers=ADMIN)
    client.get("/api/v1/devices")
    rows = client.get("/api/v1/audit", headers=grace).json()
    assert [(row["who"], row["role"], row["action"], row["object"], row["outcome"]) for row in rows] == [
        ("pi-1", "device", "join", "pi-1", "done"),
        ("grace", "operator", "create_token", "", "done"),
        ("grace", "operator", "set_budget", "pi-1", "done"),
        ("grace", "operator", "set_budget", "ghost", "device 'ghost' is not a member of the fleet"),
        ("admin-token", "admin", "revoke", "pi-1", "done"),
    ]
    assert rows[1]["detail"] == {"uses": 2, "ttl_s": 3600.0, "note": "", "group": "kitchen"}
    assert made not in str(rows)
    first = client.get("/api/v1/audit", params={"limit": 2, "newest_first": True}, headers=grace)
    assert [row["action"] for row in first.json()] == ["revoke", "set_budget"]
    assert "next" in first.headers["Link"]


def test_every_command_of_the_door_is_written_down(client_of: Opener, fleet: Fleet) -> None:
    """No route can forget it: the desk writes it into the first transaction of the command, or a refusal of its own."""
    client = client_of(fleet)
    for route in COMMANDS:
        before = len(fleet.rows(Audit))
        ask(client, route, TOKEN)
        assert len(fleet.rows(Audit)) == before + 1, route.name


def test_a_command_that_fails_half_way_leaves_neither_its_change_nor_its_row(fleet: Fleet) -> None:
    fleet.join("pi-1")
    rows = len(fleet.rows(Audit))

    def broken(room: Any, device: str) -> None:
        with room.store.transaction() as session:
            session.get_one(Device, device).group = "kitchen"
            raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        desk_of(fleet).serving(LOCAL).command(broken, "pi-1")
    assert (fleet.device("pi-1").group, len(fleet.rows(Audit))) == ("", rows)
    with fleet.room.store.transaction() as session:
        session.add(Fact(name="x", value=b""))
    assert len(fleet.rows(Audit)) == rows, "the row must not ride with somebody else's transaction"


def test_the_log_is_bounded_and_the_oldest_rows_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KEPT", 10)
    monkeypatch.setattr(audit, "TRIMMED_EVERY", 5)
    for number in range(100):
        with fleet.room.store.transaction() as session:
            audit.record(session, audit.Deed(LOCAL, "act", str(number)), 0.0)
    assert [row.object for row in fleet.rows(Audit)] == [str(number) for number in range(90, 100)]
