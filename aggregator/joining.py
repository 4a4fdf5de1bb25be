"""Who may join, and into which group: join tokens and the devices that show them. Each call is one transaction.

Of a token only the SHA-256 of its secret is kept; people name it by the first digits of that.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import placing
from aggregator.faults import CommandRefused, Fault
from aggregator.room import Room
from aggregator.store import Device, JobSession, Token
from protocol.errors import ProtocolError
from protocol.signing import VerifyKey
from protocol.topics import check_name

NAME_DIGITS: Final = 12
"""Hex digits of its digest that a token is called by: enough to tell a million tokens apart, useless to join with."""


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What a device learns when it joins; the door adds the broker's address."""

    fleet: str
    server_key: bytes


def join(room: Room, *, device: str, public_key: bytes, token: str) -> JoinResult:
    """Make a device a member, in the token's group.

    A device that asks again with its own key is welcome with a spent token too: its first answer may be lost. With a
    good one it starts over: sessions, stamps and measurements are forgotten, as a device that lost its journal needs.

    Raises:
        CommandRefused: FORBIDDEN token or revoked device; CONFLICT name taken; INVALID name or key.
    """
    try:
        check_name(device, "device")
        VerifyKey(public_key)
    except (ProtocolError, ValueError) as error:
        raise CommandRefused(Fault.INVALID, str(error)) from error
    with room.store.transaction() as session:
        known = session.get(Device, device)
        if known is not None:
            _check_return(known, public_key)
        spent = _spend(session, room, token)
        if spent is not None:
            _enter(session, room, device, public_key, spent.group)
        elif known is None:
            raise CommandRefused(Fault.FORBIDDEN, "join token is unknown, spent or expired: ask for a new one")
    return JoinResult(room.topics.fleet, room.server_key.raw)


def _check_return(known: Device, public_key: bytes) -> None:
    if known.public_key != public_key:
        raise CommandRefused(Fault.CONFLICT, f"device name {known.id!r} is taken by another key: choose another name")
    if known.revoked:
        raise CommandRefused(Fault.FORBIDDEN, f"device {known.id!r} was revoked")


def _spend(session: Session, room: Room, token: str) -> Token | None:
    row = session.get(Token, sha256(token.encode()).digest())
    if row is None or row.uses_left < 1 or row.expires_at < room.clock():
        return None
    row.uses_left -= 1
    return row


def _enter(session: JobSession, room: Room, device: str, public_key: bytes, group: str) -> None:
    member = session.get(Device, device)
    if member is None:
        job = room.of_group(group)
        session.add(Device(id=device, public_key=public_key, group=group, job=job, joined_at=room.clock()))
    else:
        member.session, member.stamps, member.decision = -1, {}, {}
        member.group = group or member.group
        placing.place(session, room, member)


def create_token(room: Room, uses: int, ttl_s: float, note: str = "", group: str = "") -> str:
    """Make a join token for `uses` devices that lives `ttl_s` seconds; only its SHA-256 is kept.

    Raises:
        CommandRefused: INVALID uses, time to live or group.
    """
    if uses < 1:
        raise CommandRefused(Fault.INVALID, f"token uses = {uses}: expected 1 or more")
    if not (isfinite(ttl_s) and ttl_s > 0):
        raise CommandRefused(Fault.INVALID, f"token ttl_s = {ttl_s}: expected more than 0 seconds")
    check_group(group)
    secret = secrets.token_urlsafe(24)
    digest = sha256(secret.encode()).digest()
    now = room.clock()
    with room.store.transaction() as session:
        session.add(Token(digest=digest, uses_left=uses, made_at=now, expires_at=now + ttl_s, note=note, group=group))
    return secret


def revoke_token(room: Room, name: str) -> None:
    """Forget a join token; who has joined with it stays.

    Raises:
        CommandRefused: NOT_FOUND, no token has this name.
    """
    with room.store.transaction() as session:
        row = next((row for row in session.scalars(select(Token)) if token_name(row) == name), None)
        if row is None:
            raise CommandRefused(Fault.NOT_FOUND, f"token {name!r} is not known: bitfleet-aggregator tokens lists them")
        session.delete(row)


def token_name(row: Token) -> str:
    """What people call a token by."""
    return row.digest.hex()[:NAME_DIGITS]


def check_group(group: str) -> None:
    """Refuse a name that no group can have.

    Raises:
        CommandRefused: INVALID group.
    """
    try:
        if group:
            check_name(group, "group")
    except ProtocolError as error:
        raise CommandRefused(Fault.INVALID, str(error)) from error
