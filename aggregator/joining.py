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

from aggregator import audit, certificates, placing
from aggregator.faults import CommandRefused, Fault
from aggregator.room import MANUAL, Room
from aggregator.store import Applicant, Device, JobSession, Token
from protocol.enrolment import join_token, split_token
from protocol.errors import ProtocolError
from protocol.signing import VerifyKey
from protocol.topics import check_name

NAME_DIGITS: Final = 12
"""Hex digits of its digest that a token is called by: enough to tell a million tokens apart, useless to join with."""


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What a device learns when it joins; the door adds addresses.

    Attributes:
        fleet: its name.
        server_key: the aggregator's public key.
        certificate: the device's own, as PEM; empty where it asked for none or there is no authority.
        waits: whether it is no member yet, but waits for an operator.
    """

    fleet: str
    server_key: bytes
    certificate: str = ""
    waits: bool = False


def join(
    room: Room, *, device: str, public_key: bytes, token: str, request: bytes = b"", proof: bytes = b""
) -> JoinResult:
    """Make a device a member, in the token's group, and give it the certificate it asks for (BF-097).

    A device that asks again with its own key is welcome without a good token too: its first answer may be lost, its
    certificate be due. With a good one it starts over: sessions, stamps and measurements are forgotten, as a device
    that lost its journal needs.

    Raises:
        CommandRefused: FORBIDDEN token, proof, or revoked or rejected device; CONFLICT name taken; INVALID name, key
            or request.
    """
    try:
        check_name(device, "device")
        key = VerifyKey(public_key)
    except (ProtocolError, ValueError) as error:
        raise CommandRefused(Fault.INVALID, str(error)) from error
    if request:
        certificates.check_proof(device, key, request, proof)
    with room.store.transaction() as session:
        known = session.get(Device, device)
        if known is not None:
            _check_return(known, public_key)
        spent = _spend(session, room, split_token(token)[0])
        if known is None and (spent is None or room.approve == MANUAL):
            _apply(session, room, device, public_key, spent)
            return JoinResult(room.topics.fleet, room.server_key.raw, waits=True)
        if spent is not None:
            _enter(session, room, device, public_key, spent.group)
            audit.by_device(session, device, "join", room.clock(), group=spent.group)
        certificate = certificates.issue(session, room, device, request) if request else ""
    return JoinResult(room.topics.fleet, room.server_key.raw, certificate)


def _apply(session: Session, room: Room, device: str, public_key: bytes, spent: Token | None) -> None:
    """Have a stranger wait, or go on waiting, for an operator's word."""
    row = session.get(Applicant, device)
    own = row is not None and row.public_key == public_key
    if row is not None and not own and not row.rejected:
        raise CommandRefused(Fault.CONFLICT, f"device name {device!r} is asked for by another key: choose another name")
    if spent is not None:
        session.merge(
            Applicant(device=device, public_key=public_key, group=spent.group, asked_at=room.clock(), rejected=False)
        )
        audit.by_device(session, device, "apply", room.clock(), group=spent.group)
    elif row is None or not own:
        raise CommandRefused(Fault.FORBIDDEN, "join token is unknown, spent or expired: ask for a new one")
    elif row.rejected:
        raise CommandRefused(Fault.FORBIDDEN, f"device {device!r} was rejected by an operator")


def approve(room: Room, device: str) -> None:
    """Take in a device that waits.

    Raises:
        CommandRefused: NOT_FOUND, none of this name waits.
    """
    with room.store.transaction() as session:
        row = _waiting(session, device)
        _enter(session, room, device, row.public_key, row.group)
        session.delete(row)


def reject(room: Room, device: str) -> None:
    """Turn away a device that waits; it is told so. With another token it may ask again.

    Raises:
        CommandRefused: NOT_FOUND, none of this name waits.
    """
    with room.store.transaction() as session:
        _waiting(session, device).rejected = True


def _waiting(session: Session, device: str) -> Applicant:
    row = session.get(Applicant, device)
    if row is None:
        raise CommandRefused(Fault.NOT_FOUND, f"device {device!r} does not wait for approval")
    return row


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
    return join_token(secret, room.keyring.authority.fingerprint) if room.keyring else secret


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
