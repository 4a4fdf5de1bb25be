"""Who is signed in: a browser shows the token once and gets a cookie that scripts cannot read and other sites not send.

Sessions live in memory; a restart of the aggregator ends them.
"""

import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.requests import HTTPConnection

from aggregator.desk import Desk

COOKIE: Final = "bitfleet"
LIVES_S: Final = 12 * 3600
"""A working day."""
MOST: Final = 1000
"""Sessions kept; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who looks at the page; `writes` says whether they may change something."""

    name: str
    writes: bool


NOBODY: Final = User("", writes=False)


class Sessions:
    """The sessions of one aggregator."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: dict[bytes, tuple[User, float]] = {}

    def begin(self, token: str) -> str | None:
        """The cookie for whoever shows a good token; None for others."""
        if not self._desk.admits(token.strip()):
            return None
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        cookie = secrets.token_urlsafe(32)
        self._known[_key(cookie)] = (User("admin", writes=True), time.monotonic() + LIVES_S)
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
