"""What the HTTP door needs of the service, and no more."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry

from aggregator import audit
from aggregator.config import LOOPBACK
from aggregator.faults import CommandRefused
from aggregator.feed import Feed
from aggregator.roles import NOBODY, Actor, who
from aggregator.room import Room
from aggregator.throttle import Throttle

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
        admin_token: the local administrator's.
        open_reads: whether reading needs no token.
        broker_for: the broker's URL for a device that reached this door under the given host name.
        broker_trust: who certifies the broker: `fleet`, its own authority, or `system`.
        actor: who stands at it.
        throttle: counts wrong tokens.
        feed: what changes, as it does.
        registry: the figures for Prometheus.
    """

    room: Room
    submit: Submit
    connected: Callable[[], bool]
    admin_token: str
    open_reads: bool
    broker_for: Callable[[str], str]
    broker_trust: str = "system"
    actor: Actor = NOBODY
    throttle: Throttle = field(default_factory=Throttle)
    feed: Feed = field(default_factory=lambda: Feed(0))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def reads_freely(self, host: str) -> bool:
        """Whether whoever reached this door under `host` may read without a token.

        A page of another site can make its own name lead to this machine, and would then read as if it were here; it
        cannot make its name `localhost`.
        """
        return self.open_reads and host in LOOPBACK

    def known(self, token: str) -> Actor:
        """Whose token it is."""
        with self.room.store.reading() as session:
            return who(session, token, self.admin_token)

    def serving(self, actor: Actor) -> "Desk":
        """The same window, with somebody standing at it."""
        return replace(self, actor=actor)

    def command(self, act: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Run a command function of `handlers`, which finds the room of the device it is about.

        It, or why it was refused, goes into the audit log.
        """
        deed = audit.Deed.of(self.actor, act, arguments, named)
        store, clock = self.room.store, self.room.clock

        def run() -> T:
            try:
                with store.accompanied(lambda session: audit.record(session, deed, clock())):
                    return act(self.room, *arguments, **named)
            except CommandRefused as error:
                with store.transaction() as session:
                    audit.record(session, deed, clock(), str(error))
                raise

        return self.submit(run)

    def of(self, job: str) -> "Desk":
        """The window of another job.

        Raises:
            KeyError: there is none of that name.
        """
        return replace(self, room=self.room.rooms[job])
