"""Who is signed in: a browser shows the token once and gets a cookie that scripts cannot read and other sites not send.

Sessions live in memory; a restart of the aggregator ends them.
"""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.requests import HTTPConnection

from aggregator import roles
from aggregator.desk import Desk
from aggregator.roles import Actor, Role

COOKIE: Final = "bitfleet"
LIVES_S: Final = 12 * 3600
"""A working day."""
MOST: Final = 1000
"""Sessions kept; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who looks at the page."""

    actor: Actor

    def may(self, least: Role) -> bool:
        """Whether their role is enough."""
        return self.actor.may(least)


NOBODY: Final = User(roles.NOBODY)


class Sessions:
    """The sessions of one aggregator."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: dict[bytes, tuple[User, float]] = {}

    def must_wait(self, address: str) -> bool:
        """Whether too many wrong tokens came from there."""
        return self._desk.throttle.wait_s(address) > 0

    def begin(self, token: str, address: str) -> str | None:
        """The cookie for whoever shows a good token; None for others."""
        actor = self._desk.known(token.strip())
        if actor is roles.NOBODY:
            self._desk.throttle.wrong(address)
            return None
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        cookie = secrets.token_urlsafe(32)
        self._known[_key(cookie)] = (User(actor), time.monotonic() + LIVES_S)
        return cookie

    def end(self, connection: HTTPConnection) -> None:
        """Forget the session of a request."""
        self._known.pop(_key(connection.cookies.get(COOKIE, "")), None)

    def user(self, connection: HTTPConnection) -> User:
        """Who asks; nobody where the cookie is missing, unknown or too old."""
        user, until = self._known.get(_key(connection.cookies.get(COOKIE, "")), (NOBODY, 0.0))
        return user if time.monotonic() < until else NOBODY

    def may_look(self, connection: HTTPConnection) -> bool:
        """Whether the page may be shown: reading is open, or somebody is signed in."""
        return self._desk.reads_freely(connection.url.hostname or "") or self.user(connection) is not NOBODY


def _key(cookie: str) -> bytes:
    return sha256(cookie.encode()).digest()
