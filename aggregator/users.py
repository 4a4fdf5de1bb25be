"""People and programs that may use the HTTP door: a name, a role, and a token of which only the SHA-256 is kept."""

import secrets
from hashlib import sha256

from aggregator.faults import CommandRefused, Fault
from aggregator.roles import GIVEN
from aggregator.room import Room
from aggregator.store import User
from protocol.errors import ProtocolError
from protocol.topics import check_name


def add_user(room: Room, name: str, role: str) -> str:
    """Make a token for somebody.

    Raises:
        CommandRefused: INVALID name or role; CONFLICT, the name is taken.
    """
    try:
        check_name(name, "user")
    except ProtocolError as error:
        raise CommandRefused(Fault.INVALID, str(error)) from error
    if role not in GIVEN:
        raise CommandRefused(Fault.INVALID, f"role {role!r}: expected one of {', '.join(GIVEN)}")
    token = secrets.token_urlsafe(32)
    with room.store.transaction() as session:
        if session.get(User, name) is not None:
            raise CommandRefused(Fault.CONFLICT, f"user {name!r} is there already: remove it first")
        digest = sha256(token.encode()).digest()
        session.add(User(name=name, role=str(role), digest=digest, made_at=room.clock()))
    return token


def remove_user(room: Room, name: str) -> None:
    """Shut somebody out: their token opens nothing any more.

    Raises:
        CommandRefused: NOT_FOUND.
    """
    with room.store.transaction() as session:
        row = session.get(User, name)
        if row is None:
            raise CommandRefused(Fault.NOT_FOUND, f"user {name!r} is not known")
        session.delete(row)
