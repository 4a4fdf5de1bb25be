"""What the HTTP door needs of the service, and no more."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from aggregator.config import LOOPBACK
from aggregator.feed import Feed
from aggregator.room import Room

T = TypeVar("T")


class Submit(Protocol):
    """Has a function called by the thread that may write, and returns its result."""

    def __call__(self, run: Callable[[], T], patience_s: float = ...) -> T:
        """The result of `run`, or what it raised; Busy when its turn did not come."""
        ...


@dataclass(frozen=True)
class Desk:
    """One window of the aggregator.

    Attributes:
        room: of the main job; reading its store is free, changing it goes through `submit`.
        submit: see `Submit`.
        connected: whether the broker is there.
        admin_token: what a writer must show.
        open_reads: whether reading needs no token.
        broker_for: the broker's URL for a device that reached this door under the given host name.
        feed: what changes, as it does.
        registry: the figures for Prometheus.
    """

    room: Room
    submit: Submit
    connected: Callable[[], bool]
    admin_token: str
    open_reads: bool
    broker_for: Callable[[str], str]
    feed: Feed = field(default_factory=lambda: Feed(0))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def reads_freely(self, host: str) -> bool:
        """Whether whoever reached this door under `host` may read without a token.

        A page of another site can make its own name lead to this machine, and would then read as if it were here; it
        cannot make its name `localhost`.
        """
        return self.open_reads and host in LOOPBACK

    def admits(self, token: str) -> bool:
        """Whether `token` is the administrator's; takes as long for a near miss as for a wild guess."""
        return hmac.compare_digest(token.encode(), self.admin_token.encode())

    def command(self, act: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run a command function of `handlers`, which finds the room of the device it is about."""
        return self.submit(lambda: act(self.room, *arguments, **named))

    def of(self, job: str) -> "Desk":
        """The window of another job.

        Raises:
            KeyError: there is none of that name.
        """
        return replace(self, room=self.room.rooms[job])
