"""Who joins, with what, and into which group."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from fleet import SERVER_KEY, TOPICS, Fleet

from aggregator import handlers, joining
from aggregator.faults import CommandRefused, Fault
from aggregator.room import Room
from aggregator.store import Applicant, Audit, Device, Token
from protocol.messages import Telemetry

KEY = bytes(range(32))


def test_a_device_joins_with_a_token_and_learns_the_servers_key(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    result = joining.join(fleet.room, device="a", public_key=KEY, token=token)
    assert (result.fleet, result.server_key) == ("test", SERVER_KEY.public.raw)
    assert fleet.device("a").public_key == KEY


def test_the_secret_of_a_token_is_not_kept(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=3, ttl_s=60.0, note="kitchen")
    (row,) = fleet.rows(Token)
    assert (row.digest, row.uses_left, row.note) == (sha256(token.encode()).digest(), 3, "kitchen")
    assert token.encode() not in fleet.room.store.path.read_bytes()


def test_a_token_is_good_for_as_many_devices_as_it_says(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=2, ttl_s=60.0)
    for name in ("a", "b"):
        joining.join(fleet.room, device=name, public_key=KEY, token=token)
    with pytest.raises(CommandRefused, match="spent") as refusal:
        joining.join(fleet.room, device="c", public_key=KEY, token=token)
    assert refusal.value.fault is Fault.FORBIDDEN


def test_an_expired_token_lets_nobody_in(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    fleet.clock.pass_(61.0)
    with pytest.raises(CommandRefused, match="expired"):
        joining.join(fleet.room, device="a", public_key=KEY, token=token)
    assert fleet.rows(Device) == []


@pytest.mark.parametrize("token", ["", "x", "ä" * 100])
def test_an_unknown_token_lets_nobody_in(fleet: Fleet, token: str) -> None:
    with pytest.raises(CommandRefused, match="unknown"):
        joining.join(fleet.room, device="a", public_key=KEY, token=token)


@pytest.mark.parametrize(
    ("device", "key", "message"),
    [
        ("A", KEY, "'A'"),
        ("", KEY, "a-z"),
        ("a/b", KEY, "a-z"),
        ("aggregator", KEY, "aggregator"),
        ("a", KEY[:31], "31 bytes"),
    ],
)
def test_a_bad_name_or_key_is_refused_before_the_token_is_spent(
    fleet: Fleet, device: str, key: bytes, message: str
) -> None:
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    with pytest.raises(CommandRefused, match=message) as refusal:
        joining.join(fleet.room, device=device, public_key=key, token=token)
    assert refusal.value.fault is Fault.INVALID
    assert fleet.rows(Token)[0].uses_left == 1


def test_a_name_cannot_be_taken_by_another_key(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=2, ttl_s=60.0)
    joining.join(fleet.room, device="a", public_key=KEY, token=token)
    with pytest.raises(CommandRefused, match="taken") as refusal:
        joining.join(fleet.room, device="a", public_key=bytes(32), token=token)
    assert refusal.value.fault is Fault.CONFLICT
    assert fleet.device("a").public_key == KEY
    assert fleet.rows(Token)[0].uses_left == 1


def test_a_device_whose_answer_was_lost_may_ask_again_with_the_spent_token(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    first = joining.join(fleet.room, device="a", public_key=KEY, token=token)
    assert joining.join(fleet.room, device="a", public_key=KEY, token=token) == first


def test_a_device_that_lost_its_journal_starts_over_with_a_new_token(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    a.session, a.stamp = 0, replace(a.stamp, boot=0)
    a.send(TOPICS.device("a", "tele"), Telemetry("idle", "", 0.0, 0, 0, 0, 0.0))
    a.connect()
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    joining.join(fleet.room, device="a", public_key=a.key.public.raw, token=token)
    a.session = 0
    a.connect()
    assert fleet.device("a").session == 1


def test_a_revoked_device_cannot_join_again(fleet: Fleet) -> None:
    (a,) = fleet.connected("a")
    handlers.revoke(fleet.room, "a")
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0)
    with pytest.raises(CommandRefused, match="revoked") as refusal:
        joining.join(fleet.room, device="a", public_key=a.key.public.raw, token=token)
    assert refusal.value.fault is Fault.FORBIDDEN


@pytest.mark.parametrize(("uses", "ttl_s"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan")), (1, float("inf"))])
def test_a_token_nobody_could_use_is_not_made(fleet: Fleet, uses: int, ttl_s: float) -> None:
    with pytest.raises(CommandRefused, match="token"):
        joining.create_token(fleet.room, uses, ttl_s)
    assert fleet.rows(Token) == []


def test_a_device_comes_into_the_group_of_its_token_and_can_be_moved(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=2, ttl_s=60.0, group="kitchen")
    for name in ("a", "b"):
        joining.join(fleet.room, device=name, public_key=KEY, token=token)
    handlers.set_group(fleet.room, "b", "garden")
    assert {row.id: row.group for row in fleet.rows(Device)} == {"a": "kitchen", "b": "garden"}
    handlers.set_group(fleet.room, "b", "")
    assert fleet.device("b").group == ""


def test_a_token_without_a_group_leaves_a_returning_device_where_it_is(fleet: Fleet) -> None:
    for group in ("kitchen", "", "garden"):
        token = joining.create_token(fleet.room, uses=1, ttl_s=60.0, group=group)
        joining.join(fleet.room, device="a", public_key=KEY, token=token)
        assert fleet.device("a").group == (group or "kitchen")


@pytest.mark.parametrize("group", ["Kitchen", "a/b", "x" * 65, "*"])
def test_a_group_has_a_name_like_a_device(fleet: Fleet, group: str) -> None:
    with pytest.raises(CommandRefused, match="group") as refusal:
        joining.create_token(fleet.room, uses=1, ttl_s=60.0, group=group)
    assert refusal.value.fault is Fault.INVALID
    assert fleet.rows(Token) == []
    with pytest.raises(CommandRefused, match="group"):
        handlers.set_group(fleet.room, "a", group)


def test_a_group_is_given_to_members_alone(fleet: Fleet) -> None:
    with pytest.raises(CommandRefused, match="'ghost'") as refusal:
        handlers.set_group(fleet.room, "ghost", "kitchen")
    assert refusal.value.fault is Fault.NOT_FOUND


def test_a_token_that_is_revoked_lets_nobody_in_and_takes_nobody_out(fleet: Fleet) -> None:
    token = joining.create_token(fleet.room, uses=2, ttl_s=60.0)
    joining.join(fleet.room, device="a", public_key=KEY, token=token)
    (row,) = fleet.rows(Token)
    joining.revoke_token(fleet.room, joining.token_name(row))
    with pytest.raises(CommandRefused, match="unknown"):
        joining.join(fleet.room, device="b", public_key=KEY, token=token)
    assert [device.id for device in fleet.rows(Device)] == ["a"]
    with pytest.raises(CommandRefused, match="not known"):
        joining.revoke_token(fleet.room, joining.token_name(row))


def test_an_operator_approves_a_device_that_showed_a_good_token(fleet: Fleet) -> None:
    fleet.room.approve = "manual"
    token = joining.create_token(fleet.room, uses=1, ttl_s=60.0, group="kitchen")
    for shown in (token, token, ""):
        assert joining.join(fleet.room, device="a", public_key=KEY, token=shown).waits, "it asks again, and waits"
    assert fleet.rows(Device) == []
    with pytest.raises(CommandRefused, match="asked for by another key"):
        joining.join(fleet.room, device="a", public_key=bytes(32), token=token)
    with pytest.raises(CommandRefused, match="token is unknown"):
        joining.join(fleet.room, device="b", public_key=KEY, token=token)
    joining.approve(fleet.room, "a")
    assert not joining.join(fleet.room, device="a", public_key=KEY, token="").waits
    assert fleet.device("a").group == "kitchen"
    assert fleet.rows(Applicant) == []
    assert [row.action for row in fleet.rows(Audit)] == ["apply"]


def test_a_rejected_device_is_told_and_may_come_back_with_another_token(fleet: Fleet) -> None:
    fleet.room.approve = "manual"
    tokens = [joining.create_token(fleet.room, uses=1, ttl_s=60.0) for _ in range(3)]
    joining.join(fleet.room, device="a", public_key=KEY, token=tokens[0])
    joining.reject(fleet.room, "a")
    with pytest.raises(CommandRefused, match="rejected") as refusal:
        joining.join(fleet.room, device="a", public_key=KEY, token=tokens[0])
    assert refusal.value.fault is Fault.FORBIDDEN
    assert joining.join(fleet.room, device="a", public_key=KEY, token=tokens[1]).waits
    joining.reject(fleet.room, "a")
    assert joining.join(fleet.room, device="a", public_key=bytes(32), token=tokens[2]).waits, "the name is free again"


@pytest.mark.parametrize("command", [joining.approve, joining.reject])
def test_only_who_waits_can_be_approved_or_rejected(fleet: Fleet, command: Callable[[Room, str], None]) -> None:
    with pytest.raises(CommandRefused, match="does not wait") as refusal:
        command(fleet.room, "ghost")
    assert refusal.value.fault is Fault.NOT_FOUND
