"""Joining, against a real HTTP server that answers in every way an aggregator may."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
from edge_support import reply, serving

from edge.config import Config, ConfigError
from edge.join import JoinError, NameTaken, Pending, TokenRefused, Unavailable, join
from edge.lifecycle import Lifecycle
from edge.membership import Membership, MembershipError, device_key, load_membership
from edge.provision import Provisioner
from edge.state import Journal
from protocol.signing import SigningKey

SERVER = SigningKey.generate().public.raw.hex()
ANSWER = {"fleet": "test", "server_key": SERVER, "broker": "mqtt://10.0.0.2:1883"}
PROBLEM = {"title": "no", "detail": "the reason"}


class Door:
    """Answers join with the given (status, body) pairs in turn, the last one for ever."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.answers, self.asked = list(answers), []

    asked: list[dict[str, str]]

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        reply(request, status, body if isinstance(body, bytes) else json.dumps(body).encode())


def ask(answer: Callable[[BaseHTTPRequestHandler], None]) -> Membership:
    with serving(answer) as url, urllib3.PoolManager() as http:
        return join(http, url, device="pi-1", public=SigningKey(bytes(32)).public, token="secret")


def test_a_good_token_gives_fleet_key_and_broker() -> None:
    door = Door((201, ANSWER))
    assert ask(door) == Membership("pi-1", "test", SERVER, "mqtt://10.0.0.2:1883")
    assert door.asked == [{"device": "pi-1", "public_key": SigningKey(bytes(32)).public.raw.hex(), "token": "secret"}]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (202, {}, Pending),
        (401, PROBLEM, TokenRefused),
        (403, PROBLEM, TokenRefused),
        (409, PROBLEM, NameTaken),
        (422, PROBLEM, JoinError),
        (503, PROBLEM, Unavailable),
        (201, b"not json", Unavailable),
        (201, [], Unavailable),
        (201, {**ANSWER, "server_key": "00"}, Unavailable),
        (201, {**ANSWER, "broker": "10.0.0.2"}, Unavailable),
        (201, {**ANSWER, "fleet": "A fleet"}, Unavailable),
        (201, {**ANSWER, "fleet": 5}, Unavailable),
    ],
)
def test_every_other_answer_has_its_error(status: int, body: object, kind: type[JoinError]) -> None:
    with pytest.raises(JoinError) as caught:
        ask(Door((status, body)))
    assert type(caught.value) is kind
    assert "secret" not in str(caught.value)
    if body == PROBLEM:
        assert "the reason" in str(caught.value)


def test_an_aggregator_that_is_away_is_named() -> None:
    with urllib3.PoolManager() as http, pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9: not reachable"):
        join(http, "http://127.0.0.1:9", device="pi-1", public=SigningKey(bytes(32)).public, token="t")


def provision(folder: Path, url: str, *, stop_after: int = 99) -> tuple[Membership | None, list[Lifecycle]]:
    """Provision without waiting; also every state passed."""
    states: list[Lifecycle] = []
    waits = iter([False] * stop_after + [True])
    journal, _ = Journal.open(folder / "journal", on_state=states.append)
    config = Config(state_dir=folder, device="pi-1", aggregator=url)
    with urllib3.PoolManager() as http:
        return Provisioner(config, journal, device_key(folder), http, lambda _: next(waits)).membership(), states


def test_a_device_waits_for_aggregator_and_approval_and_then_erases_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    door = Door((503, PROBLEM), (202, {}), (202, {}), (201, ANSWER))
    with serving(door) as url:
        membership, states = provision(tmp_path, url)
    assert membership == load_membership(tmp_path)
    waiting = [Lifecycle.PENDING, Lifecycle.JOINING]
    assert states == [Lifecycle.JOINING, *waiting, *waiting, Lifecycle.IDLE]
    assert not (tmp_path / "token").exists()
    assert {asked["token"] for asked in door.asked} == {"secret"}
    assert len({asked["public_key"] for asked in door.asked}) == 1


def test_a_member_does_not_ask_again_even_with_a_fresh_journal(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with serving(Door((201, ANSWER))) as url:
        membership, _ = provision(tmp_path, url)
    (tmp_path / "journal").write_bytes(b"damaged")
    again, states = provision(tmp_path, "http://127.0.0.1:9")
    assert again == membership
    assert states == [Lifecycle.JOINING, Lifecycle.IDLE]


def test_a_refused_token_ends_it_and_keeps_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    with serving(Door((403, PROBLEM))) as url, pytest.raises(TokenRefused):
        provision(tmp_path, url)
    assert (tmp_path / "token").exists()
    assert Journal.open(tmp_path / "journal")[0].record.lifecycle is Lifecycle.UNPROVISIONED


def test_the_program_can_end_while_it_waits(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    membership, _ = provision(tmp_path, "http://127.0.0.1:9", stop_after=3)
    assert membership is None


def test_without_token_or_aggregator_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenRefused, match="--token"):
        provision(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="--aggregator"):
        provision(tmp_path, "")


def test_a_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = device_key(tmp_path)
    assert device_key(tmp_path).raw == key.raw
    assert (tmp_path / "device.key").stat().st_mode & 0o777 == 0o600


def test_a_damaged_key_is_left_alone_and_said_so(tmp_path: Path) -> None:
    (tmp_path / "device.key").write_bytes(b"short")
    with pytest.raises(MembershipError, match="5 bytes, expected 32"):
        device_key(tmp_path)
    assert (tmp_path / "device.key").read_bytes() == b"short"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"device": "pi-1"}'])
def test_a_damaged_membership_says_how_to_join_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "membership.json").write_bytes(content)
    with pytest.raises(MembershipError, match="join again"):
        load_membership(tmp_path)
