"""A virtual device with its connection: what arrives, what is due, and what it does while it is away."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from protocol.errors import RemoteProtocolError
from protocol.messages import Offer
from virtual.agent import Outgoing, VirtualAgent
from virtual.bases import Bases
from virtual.link import VirtualLink

PATIENCE_S: Final = 2.0
"""For a broadcast; then the base is fetched, as `edge.broadcasts` does."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0


@dataclass
class Member:
    """A device of a crowd.

    Args:
        agent: what it says.
        link: how it says it.
        bases: where base models come from.
        rng: for pauses.
        training_s: longest time that training takes.
    """

    agent: VirtualAgent
    link: VirtualLink
    bases: Bases
    rng: random.Random
    training_s: float
    present: bool = False
    silent: bool = False
    leaves_at_s: float = float("inf")
    returns_at_s: float = float("inf")
    connects_at_s: float = float("inf")
    inbox: deque[tuple[str, bytes]] = field(default_factory=deque)
    _pause_s: float = FIRST_PAUSE_S
    _heard_bytes: dict[bytes, int] = field(default_factory=dict)
    _begun: dict[str, float] = field(default_factory=dict)
    """When an offer's base is looked for over HTTP, by task."""
    _ready_at_s: dict[str, float] = field(default_factory=dict)

    # --- connection ---

    def connect(self, now_s: float) -> bool:
        """Try to be there; whether a connection has begun. If not, the next try is in `connects_at_s`."""
        self.connects_at_s, self.inbox = float("inf"), deque()
        if self.link.connect(self.agent.will()):
            return True
        self.lost(now_s)
        return False

    def lost(self, now_s: float) -> None:
        """The connection broke: come back after a pause."""
        self.present = False
        self.link.cut()
        self.connects_at_s = now_s + self._pause_s * self.rng.uniform(0.5, 1.5)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def vanish(self, *, silent: bool) -> None:
        """Be gone: with the connection cut, or with one that stays open and says nothing."""
        self.present, self.silent, self.connects_at_s = False, silent, float("inf")
        self._begun.clear()
        self._ready_at_s.clear()
        self.agent.working.clear()
        if not silent:
            self.link.cut()

    def on_up(self) -> None:
        """The broker has taken the subscriptions."""
        if not self.silent:
            self.present, self._pause_s = True, FIRST_PAUSE_S
            self._send(list(self.agent.introduce()))

    # --- work ---

    def handle(self, now_s: float) -> None:
        """Answer everything that has arrived; while it is silent, nothing."""
        while self.inbox:
            topic, data = self.inbox.popleft()
            if self.silent:
                continue
            try:
                piece = self.agent.topics.parse_model(topic)
                if piece is not None:
                    self._heard_bytes[piece[0]] = self._heard_bytes.get(piece[0], 0) + len(data)
                    self.bases.hear(piece[0])
                else:
                    self._send(list(self.agent.on_message(topic, data, now_s)))
            except RemoteProtocolError:
                continue  # a spoiled message is as good as none
        for offer in self.agent.working.values():
            self._begin(offer, now_s)

    @property
    def busy(self) -> bool:
        """Whether something may be due."""
        return self.present and bool(self.agent.working or self.agent.outbox)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        if not self.present:
            return
        for offer in list(self.agent.working.values()):
            self._work(offer, now_s)
        self._send(list(self.agent.due(now_s)))

    def _begin(self, offer: Offer, now_s: float) -> None:
        if offer.task not in self._begun:
            self.link.listen(self.agent.topics.models(offer.precision))
            self._begun = {offer.task: now_s + PATIENCE_S * offer.broadcast}
            self._heard_bytes = {offer.newest.digest: self._heard_bytes.get(offer.newest.digest, 0)}

    def _work(self, offer: Offer, now_s: float) -> None:
        if offer.task in self._ready_at_s:
            if now_s >= self._ready_at_s[offer.task]:
                del self._ready_at_s[offer.task]
                self.agent.train(offer)
        elif self._has_base(offer, now_s):
            self._ready_at_s = {offer.task: now_s + self.rng.uniform(0, self.training_s)}

    def _has_base(self, offer: Offer, now_s: float) -> bool:
        newest = offer.newest
        if self._heard_bytes.get(newest.digest, 0) >= newest.payload_bytes:
            return True
        return now_s >= self._begun[offer.task] and self.bases.has(newest.digest)

    def _send(self, messages: list[Outgoing]) -> None:
        for message in messages:
            self.link.publish(message)
