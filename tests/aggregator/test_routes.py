"""The HTTP door over a real room in which real devices have trained a round."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

import httpx
import pytest
from desks import ADMIN, TOKEN, desk_of, is_problem, never
from fleet import SERVER_KEY, Fleet

from aggregator import joining, rounds
from aggregator.app import MAX_BODY_BYTES, build_app, serve_http
from aggregator.broker import BrokerUrl
from aggregator.config import load
from aggregator.service import broker_address
from aggregator.store import MAIN, Pause
from protocol.messages import Offer
from protocol.signing import SigningKey

KEY = SigningKey(bytes(32)).public.raw.hex()

Opener = Callable[..., httpx.Client]


@pytest.fixture
def client_of() -> Iterator[Opener]:
    """Opens the door of a fleet on a real port."""
    with ExitStack() as stack:

        def open_(fleet: Fleet, **changes: Any) -> httpx.Client:
            app = build_app(desk_of(fleet, **changes))
            url = stack.enter_context(serve_http(app, "127.0.0.1", 0))
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False))

        yield open_


@pytest.fixture
def trained(fleet: Fleet) -> Fleet:
    """Three devices, one of which declined, and a committed round."""
    one, two, three = fleet.connected("pi-1", "pi-2", "pi-3")
    fleet.until("collecting")
    one.deliver_update()
    three.decline(three.offer())
    two.deliver_update()
    fleet.run()
    assert fleet.version() == 1
    return fleet


def test_health_and_readiness(client_of: Opener, fleet: Fleet) -> None:
    assert client_of(fleet).get("/healthz").json() == {"status": "ok"}
    assert client_of(fleet).get("/readyz").json() == {"ready": True, "broker": True, "database": True}


@pytest.mark.parametrize(
    ("trouble", "missing"), [({"connected": lambda: False}, "broker"), ({"submit": never}, "database")]
)
def test_it_is_not_ready_without_broker_or_database(
    client_of: Opener, fleet: Fleet, trouble: dict[str, Any], missing: str
) -> None:
    answer = client_of(fleet, **trouble).get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "broker": True, "database": True} | {missing: False}


def test_a_device_is_shown_with_precision_reason_bytes_and_receipts(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    assert [device["id"] for device in client.get("/api/v1/devices").json()] == ["pi-1", "pi-2", "pi-3"]
    device = client.get("/api/v1/devices/pi-1").json()
    assert device["status"] == "online"
    assert device["precision"] == "W8A8"
    assert "mains" in device["reason"]
    assert device["decision"]["inferences_per_day"] == 1000
    assert device["birth"]["samples"] == 100
    assert 0 < device["update_bytes"] < device["update_fp32_bytes"] / 20
    assert [(receipt["round"], receipt["accepted"]) for receipt in device["receipts"]] == [(1, True)]
    assert device["refusals"] == {}


def test_refusals_are_counted_where_they_are_shown(client_of: Opener, trained: Fleet) -> None:
    trained.handsets["pi-1"].announce(trained.handsets["pi-1"].manifest(_any_offer(), b"x", round=7))
    assert sum(client_of(trained).get("/api/v1/devices/pi-1").json()["refusals"].values()) == 1


def _any_offer() -> Offer:
    return Offer("t", 1, "", "W8A8", "sign", b"", 1, "0", b"", 1.0, 1, 1, 0.1, 0)


def test_a_round_is_shown_with_tasks_states_and_bytes(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    (row,) = client.get("/api/v1/rounds").json()
    assert (row["number"], row["state"], row["base_version"]) == (1, "announced", 0)
    assert row["tasks"] == {"accepted": 2, "declined": 1}
    detail = client.get("/api/v1/rounds/1").json()
    assert {offer["device"]: offer["state"] for offer in detail["offers"]} == {
        "pi-1": "accepted",
        "pi-2": "accepted",
        "pi-3": "declined",
    }
    updates = client.get("/api/v1/updates", params={"round": 1}).json()
    assert row["update_bytes"] == sum(update["payload_bytes"] for update in updates) > 0
    assert client.get("/api/v1/updates", params={"round": 2}).json() == []
    assert client.get("/api/v1/updates").json() == updates
    assert client.get(f"/api/v1/updates/{updates[0]['task']}").json() == updates[0]


def test_a_model_is_shown_with_its_checked_exports_and_they_are_blobs(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    newest, first = client.get("/api/v1/models").json()
    assert (newest["version"], first["version"]) == (1, 0)
    assert client.get("/api/v1/models/1").json() == newest
    for export in newest["exports"]:
        assert export["pictures"] > 0
        data = client.get(f"/api/v1/blobs/{export['digest']}").content
        assert sha256(data).hexdigest() == export["digest"]
        assert len(data) == export["model_bytes"]


def test_the_status_says_where_the_fleet_stands(client_of: Opener, trained: Fleet) -> None:
    status = client_of(trained).get("/api/v1/status").json()
    assert (status["fleet"], status["round"], status["state"], status["model_version"]) == ("test", 1, "announced", 1)
    assert (status["devices"], status["online"], status["paused"], status["rounds_planned"]) == (3, 3, False, 1)
    assert status["server_key"] == SERVER_KEY.public.raw.hex()
    assert status["broker"] == "mqtt://127.0.0.1:1883"
    assert [device["id"] for device in status["live"]] == ["pi-1", "pi-2", "pi-3"]


def test_the_ledger_is_shown_whole_by_round_and_by_device(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    ledger = client.get("/api/v1/energy").json()
    devices = ("pi-1", "pi-2", "pi-3")
    parts = [client.get("/api/v1/energy", params={"device": name}).json() for name in devices]
    assert ledger["total_mj"] == pytest.approx(sum(entry["energy_mj"] for entry in ledger["entries"]), rel=1e-9)
    assert ledger["total_mj"] == pytest.approx(sum(part["total_mj"] for part in parts), rel=1e-9)
    assert ledger["total_mj"] == pytest.approx(sum(total["energy_mj"] for total in ledger["totals"]), rel=1e-9)
    assert {entry["purpose"] for entry in parts[0]["entries"]} == {"up", "down", "training"}
    assert {entry["purpose"] for entry in parts[2]["entries"]} == {"down"}, "it declined, but heard the broadcast"
    assert client.get("/api/v1/energy", params={"round": 1}).json() == ledger
    assert client.get("/api/v1/energy", params={"round": 2}).json() == {"entries": [], "totals": [], "total_mj": 0.0}


def test_a_fleet_that_paused_itself_says_why(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    with fleet.room.store.transaction() as session:
        session.merge(Pause(job=MAIN, because="budget 0.1 J a round: …"))
    assert client.get("/api/v1/status").json()["paused_because"] == "budget 0.1 J a round: …"
    client.post("/api/v1/rounds/pause", headers=ADMIN)
    assert client.get("/api/v1/status").json()["paused_because"] == ""


def test_before_the_first_round_the_status_is_empty(client_of: Opener, fleet: Fleet) -> None:
    status = client_of(fleet).get("/api/v1/status").json()
    assert (status["round"], status["state"], status["devices"], status["model_version"]) == (0, "", 0, 0)


@pytest.mark.parametrize(
    "path", ["devices/nobody", "rounds/9", "updates/none", "models/9", f"blobs/{'0' * 64}", "blobs/..", "nothing"]
)
def test_what_is_not_there_is_a_problem_of_status_404(client_of: Opener, fleet: Fleet, path: str) -> None:
    is_problem(client_of(fleet).get(f"/api/v1/{path}"), 404, "")


@pytest.mark.parametrize("path", ["devices/Bad_Name", "rounds/-1", "rounds/x", "updates?round=x", "models/99999999999"])
def test_what_makes_no_sense_is_a_problem_of_status_422(client_of: Opener, fleet: Fleet, path: str) -> None:
    is_problem(client_of(fleet).get(f"/api/v1/{path}"), 422, "")


# --- blobs ---


@pytest.fixture
def blob(client_of: Opener, fleet: Fleet) -> tuple[httpx.Client, str, bytes]:
    data = bytes(range(256)) * 40
    return client_of(fleet, open_reads=False), f"/api/v1/blobs/{fleet.room.blobs.put(data)}", data


def test_a_blob_has_its_digest_as_etag_and_is_not_sent_twice(blob: tuple[httpx.Client, str, bytes]) -> None:
    client, path, data = blob
    answer = client.get(path)
    assert answer.content == data
    etag = answer.headers["etag"]
    assert etag == f'"{path[-64:]}"'
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_head_of_a_blob_says_its_size(blob: tuple[httpx.Client, str, bytes]) -> None:
    client, path, data = blob
    answer = client.head(path)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(data)), b"")


def test_a_broken_download_goes_on_where_it_stopped(blob: tuple[httpx.Client, str, bytes]) -> None:
    client, path, data = blob
    etag = client.head(path).headers["etag"]
    rest = client.get(path, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, data[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{len(data) - 1}/{len(data)}"
    whole = client.get(path, headers={"Range": "bytes=1000-", "If-Range": '"another version"'})
    assert (whole.status_code, whole.content) == (200, data)
    assert client.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416


# --- who may do what ---


def test_a_device_joins_with_a_token_and_learns_key_and_broker(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet, open_reads=False)
    token = client.post("/api/v1/tokens", json={}, headers=ADMIN).json()["token"]
    answer = client.post("/api/v1/join", json={"device": "pi-9", "public_key": KEY, "token": token})
    assert answer.status_code == 201
    assert answer.json() == {
        "fleet": "test",
        "server_key": SERVER_KEY.public.raw.hex(),
        "broker": "mqtt://127.0.0.1:1883",
    }
    assert fleet.device("pi-9").public_key.hex() == KEY
    other = {"device": "pi-10", "public_key": KEY, "token": token}
    is_problem(client.post("/api/v1/join", json=other), 403, "spent")


@pytest.mark.parametrize(
    "change",
    [
        {"device": "../x"},
        {"device": "A"},
        {"public_key": "00"},
        {"public_key": "zz" * 32},
        {"token": "x" * 201},
        {"request": "not base64!"},
        {"proof": "00"},
        {"token": None},
    ],
)
def test_a_join_that_makes_no_sense_is_refused(client_of: Opener, fleet: Fleet, change: dict[str, Any]) -> None:
    body = {"device": "pi-9", "public_key": KEY, "token": "t"} | change
    is_problem(client_of(fleet).post("/api/v1/join", json=body), 422, next(iter(change)))


def test_a_name_that_is_taken_is_a_conflict(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    token = joining.create_token(trained.room, 1, 60.0)
    body = {"device": "pi-1", "public_key": KEY, "token": token}
    is_problem(client.post("/api/v1/join", json=body), 409, "taken")


WRITES = [
    ("POST", "tokens", {}),
    ("PUT", "devices/pi-1/budget", {"joules_per_day": 5}),
    ("POST", "devices/pi-1/revoke", None),
    ("POST", "devices/pi-1/quarantine", {"reason": "lens is broken"}),
    ("POST", "devices/pi-1/release", None),
    ("POST", "rounds/abort", None),
    ("POST", "rounds/pause", None),
    ("POST", "rounds/resume", None),
]


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": ""}]
)
def test_nothing_is_changed_without_the_token(client_of: Opener, fleet: Fleet, header: dict[str, str]) -> None:
    client = client_of(fleet)
    for method, path, body in WRITES:
        answer = client.request(method, f"/api/v1/{path}", json=body, headers=header)
        is_problem(answer, 401, "admin-token")
        assert answer.headers["www-authenticate"] == "Bearer"


READS = ["status", "devices", "devices/pi-1", "rounds", "rounds/1", "updates", "updates/t", "models", "models/0"]


def test_reads_need_the_token_when_the_door_is_open_to_others(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet, open_reads=False)
    for path in READS:
        is_problem(client.get(f"/api/v1/{path}"), 401, "admin-token")
        assert client.get(f"/api/v1/{path}", headers=ADMIN).status_code in {200, 404}


def test_another_sites_name_for_this_machine_does_not_open_reading(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    is_problem(client.get("/api/v1/status", headers={"Host": "evil.example"}), 401, "admin-token")
    for name in ("localhost:8700", "[::1]:8700", "127.0.0.1"):
        assert client.get("/api/v1/status", headers={"Host": name}).status_code == 200


# --- commands ---


def test_a_budget_changes_the_precision_and_null_gives_back_the_devices_own(client_of: Opener, fleet: Fleet) -> None:
    fleet.connected("pi-1")
    client = client_of(fleet)
    path = "/api/v1/devices/pi-1"
    needs = {need["precision"]: need["j_per_day"] for need in client.get(path).json()["decision"]["needs"]}
    between = (needs["W4A8"] + needs["W8A8"]) / 2
    assert client.put(f"{path}/budget", json={"joules_per_day": between}, headers=ADMIN).status_code == 204
    device = client.get(path).json()
    assert (device["budget_j_per_day"], device["precision"]) == (between, "W4A8")
    assert device["reason"].startswith("W8A8 needs ")
    assert (device["feasible"], device["doubts"]) == (True, [])
    client.put(f"{path}/budget", json={"joules_per_day": None}, headers=ADMIN)
    device = client.get(path).json()
    assert (device["budget_j_per_day"], device["precision"]) == (None, "W8A8")


@pytest.mark.parametrize("value", [-1, "much", 1e300])
def test_an_impossible_budget_is_refused(client_of: Opener, trained: Fleet, value: Any) -> None:
    answer = client_of(trained).put("/api/v1/devices/pi-1/budget", json={"joules_per_day": value}, headers=ADMIN)
    is_problem(answer, 422, "joules_per_day")


def test_a_device_in_quarantine_is_shown_with_its_reason(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    place = "/api/v1/devices/pi-2"
    assert client.post(f"{place}/quarantine", json={"reason": "lens is broken"}, headers=ADMIN).status_code == 204
    shown = client.get(place).json()
    assert shown["quarantined"] == shown["quarantine"]["reason"] == "lens is broken"
    assert shown["quarantine"]["since"] > 0
    assert client.post(f"{place}/release", headers=ADMIN).status_code == 204
    assert client.get(place).json()["quarantined"] == ""
    is_problem(client.post(f"{place}/release", headers=ADMIN), 409, "not in quarantine")
    is_problem(client.post(f"{place}/quarantine", json={"reason": ""}, headers=ADMIN), 422, "reason")
    (update,) = [row for row in client.get("/api/v1/updates").json() if row["device"] == "pi-2"]
    assert update["norm"] > 0
    assert update["doubt"] == ""


def test_a_revoked_device_is_shown_as_such(client_of: Opener, trained: Fleet) -> None:
    client = client_of(trained)
    assert client.post("/api/v1/devices/pi-2/revoke", headers=ADMIN).status_code == 204
    assert client.get("/api/v1/devices/pi-2").json()["revoked"] is True
    is_problem(client.post("/api/v1/devices/nobody/revoke", headers=ADMIN), 404, "nobody")


def test_pausing_holds_back_the_next_round_and_resuming_opens_it(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    fleet.connected("pi-1")
    client.post("/api/v1/rounds/pause", headers=ADMIN)
    assert client.get("/api/v1/status").json()["paused"] is True
    assert not rounds.advance(fleet.room)
    client.post("/api/v1/rounds/resume", headers=ADMIN)
    assert client.get("/api/v1/status").json()["paused"] is False
    assert rounds.advance(fleet.room)
    assert client.post("/api/v1/rounds/abort", headers=ADMIN).json() == {"round": 1}
    is_problem(client.post("/api/v1/rounds/abort", headers=ADMIN), 409, "no round is running")


def test_a_busy_aggregator_asks_to_come_back(client_of: Opener, fleet: Fleet) -> None:
    answer = client_of(fleet, submit=never).post("/api/v1/rounds/pause", headers=ADMIN)
    is_problem(answer, 503, "try again")
    assert answer.headers["retry-after"] == "5"


def test_a_failure_inside_is_a_problem_without_its_secrets(client_of: Opener, fleet: Fleet) -> None:
    def fail(run: Callable[[], Any], patience_s: float = 0.0) -> Any:
        raise RuntimeError("a secret")

    answer = client_of(fleet, submit=fail).post("/api/v1/rounds/pause", headers=ADMIN)
    is_problem(answer, 500, "RuntimeError")
    assert "a secret" not in answer.text


def test_a_body_above_the_limit_is_refused_before_it_is_read(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    is_problem(client.post("/api/v1/join", content=b" " * (MAX_BODY_BYTES + 1)), 413, "at most")
    pieces = (b" " * 1024 for _ in range(MAX_BODY_BYTES // 1024 + 1))
    is_problem(client.post("/api/v1/join", content=pieces), 413, "at most")


# --- the description ---


def test_every_answer_is_described_and_no_page_loads_a_cdn(client_of: Opener, fleet: Fleet) -> None:
    client = client_of(fleet)
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    description = client.get("/openapi.json").json()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations) >= 23
    for operation in operations:
        good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        assert "content" in good or "204" in operation["responses"]
        assert operation["description"]


def test_devices_elsewhere_are_told_an_address_they_can_reach() -> None:
    def told(broker: str = "auto", **changes: Any) -> str:
        network = "resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"
        config = load(environment={}, overrides={"broker": broker, "job": {"architecture": network}, **changes})
        return broker_address(config, BrokerUrl("127.0.0.1", 1883))("aggregator.lan")

    assert told() == "mqtt://127.0.0.1:1883"
    assert told(broker_host="0.0.0.0") == "mqtt://aggregator.lan:1883"
    assert told(broker_host="0.0.0.0", advertise_broker="mqtts://outside:8883") == "mqtts://outside:8883"
