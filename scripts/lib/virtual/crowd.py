"""Some hundred virtual devices in one process and one thread.

    python -m virtual.crowd PLAN.json

Lines on the standard input command it: `churn` lets devices come and go, `settle` brings all of them back for good,
and its end ends the process. Once a second it says on the standard output how it stands:

    {"present": 480, "owed": 12, "agents": 500, "departures": 31}
"""

import json
import random
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

import urllib3

from protocol.signing import VerifyKey
from protocol.topics import Topics
from virtual.agent import VirtualAgent
from virtual.bases import Bases
from virtual.churn import Churn
from virtual.ledger import Ledger
from virtual.link import VirtualLink
from virtual.member import Member

TICK_S: Final = 0.1
"""How often devices look at what is due."""
TELL_S: Final = 1.0
KEEP_S: Final = 2.0
"""How often connections are looked after."""
JOINING: Final = 8
"""Devices that join at a time."""
CONNECTING: Final = 20
"""Connections begun in one tick: a storm of reconnects is spread out, as by every back-off."""


@dataclass(frozen=True)
class Plan:
    """What a crowd is told: `first` and `count` of its devices, and the rest as `Churn` and `Member` say."""

    http: str
    broker_host: str
    broker_port: int
    fleet: str
    token: str
    server_key: str
    ledger: str
    first: int
    count: int
    churn: float = 0.0
    absence_s: float = 10.0
    training_s: float = 1.0
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file of JSON."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Into one."""
        path.write_text(json.dumps(asdict(self)))


class Crowd:
    """The loop that serves them all."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan = plan
        self._http = urllib3.PoolManager(maxsize=JOINING, timeout=20.0, retries=urllib3.Retry(8, backoff_factor=0.2))
        self._bases = Bases(plan.http, self._http)
        self._selector = selectors.DefaultSelector()
        self._keep_at_s = 0.0
        self._watched: dict[int, tuple[socket.socket, int]] = {}
        self._churn = Churn(plan.churn, plan.absence_s, plan.seed + plan.first)
        self.members = [self._member(index, ledger) for index in range(plan.first, plan.first + plan.count)]

    def _member(self, index: int, ledger: Ledger) -> Member:
        plan, name = self._plan, f"v-{index:04d}"
        key = VerifyKey(bytes.fromhex(plan.server_key))
        agent = VirtualAgent(name, index, Topics(plan.fleet), ledger, server_key=key)
        names = agent.topics.subscriptions_of_device(name)
        link = VirtualLink(
            plan.broker_host,
            plan.broker_port,
            name,
            names,
            arrived=lambda topic, data: member.inbox.append((topic, data)),
            up=lambda: member.on_up(),  # noqa: PLW0108 (it is made below)
        )
        member = Member(agent, link, self._bases, random.Random(index), plan.training_s)
        return member

    def join(self) -> None:
        """Make every device a member of the fleet."""
        with ThreadPoolExecutor(JOINING) as pool:
            list(pool.map(self._join, self.members))

    def _join(self, member: Member) -> None:
        agent = member.agent
        body = {"device": agent.name, "public_key": agent.key.public.raw.hex(), "token": self._plan.token}
        answer = self._http.request("POST", f"{self._plan.http}/api/v1/join", json=body)
        if answer.status != 201:
            sys.exit(f"{agent.name} cannot join: {answer.status} {answer.data.decode()[:300]}")

    def run(self) -> None:
        """Serve until the standard input ends."""
        now_s = time.monotonic()
        for member in self.members:
            member.connects_at_s = now_s
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        tick_at_s = tell_at_s = now_s
        while True:
            if not self._serve(TICK_S / 2):
                return
            now_s = time.monotonic()
            if now_s >= tick_at_s:
                tick_at_s = now_s + TICK_S
                self._tick(now_s)
            if now_s >= tell_at_s:
                tell_at_s = now_s + TELL_S
                self._tell()

    def _serve(self, timeout_s: float) -> bool:
        """Move bytes; False when the commands have ended."""
        touched = []
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                if not self._obey(sys.stdin.readline().strip()):
                    return False
                continue
            member: Member = key.data
            alive = member.link.read() if events & selectors.EVENT_READ else True
            alive = alive and (member.link.write() if events & selectors.EVENT_WRITE else True)
            if not alive:
                self._forget(member)
                continue
            touched.append(member)
        now_s = time.monotonic()
        for member in touched:
            member.handle(now_s)
            self._watch(member)
        return True

    def _obey(self, command: str) -> bool:
        now_s = time.monotonic()
        if command == "churn":
            self._churn.begin(self.members, now_s)
        if command == "settle":
            self._churn.end(self.members, now_s)
        return bool(command)

    def _tick(self, now_s: float) -> None:
        for member in self._churn.move(self.members, now_s):
            member.link.cut()
            member.connects_at_s = now_s
        for member in self.members:
            if member.link.socket is None:
                self._unwatch(member)  # before a new connection gets the same number
        due = [member for member in self.members if now_s >= member.connects_at_s]
        for member in due[:CONNECTING]:
            if member.connect(now_s):
                self._watch(member)
        for member in self.members:
            if member.busy:
                member.tick(now_s)
                self._watch(member)
        if now_s >= self._keep_at_s:
            self._keep_at_s = now_s + KEEP_S
            self._keep()

    def _keep(self) -> None:
        """Pings, and connections that broke without anybody reading of it."""
        for member in self.members:
            if member.link.open and not member.link.keep():
                self._forget(member)
            self._watch(member)

    def _forget(self, member: Member) -> None:
        self._unwatch(member)
        if member.silent:
            member.link.cut()
        else:
            member.lost(time.monotonic())

    def _watch(self, member: Member) -> None:
        stream = member.link.socket
        if stream is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.link.wants_write else 0)
        known = self._watched.get(member.agent.index)
        if known is None:
            self._selector.register(stream, events, member)
        elif known[1] != events or known[0] is not stream:
            self._unwatch(member)
            self._selector.register(stream, events, member)
        self._watched[member.agent.index] = (stream, events)

    def _unwatch(self, member: Member) -> None:
        known = self._watched.pop(member.agent.index, None)
        if known is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(known[0])

    def _tell(self) -> None:
        told = {
            "present": sum(member.present for member in self.members),
            "owed": sum(len(member.agent.outbox) for member in self.members),
            "agents": len(self.members),
            "departures": self._churn.departures,
        }
        print(json.dumps(told), flush=True)


def main(arguments: Sequence[str]) -> None:
    """Entry point."""
    plan = Plan.read(Path(arguments[0]))
    with Ledger(Path(plan.ledger)) as ledger:
        crowd = Crowd(plan, ledger)
        crowd.join()
        crowd.run()


if __name__ == "__main__":
    main(sys.argv[1:])
