"""CPU time of one update at the aggregator, by the functions that serve the fleet: through ingest, and in the merge.

One room on a real disk, one round, virtual devices whose messages are handed to `handlers.on_message`; no broker.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from merge_round import PRECISION, base_of
from virtual.agent import Outgoing, VirtualAgent
from virtual.ledger import Ledger

from aggregator import handlers, outbox, planning, rounds, versions
from aggregator.blobs import Blobs
from aggregator.job import Job
from aggregator.joining import create_token, join
from aggregator.merging import merge_journal
from aggregator.room import Room
from aggregator.state_dir import BLOBS, DATABASE
from aggregator.store import Model, Store
from protocol.codec.recipe import DEFAULT_RECIPE
from protocol.messages import Need, Offer, Receipt
from protocol.precision import Precision
from protocol.signing import SigningKey
from protocol.topics import Topics

FLEET: Final = Topics("cost")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one update, in milliseconds of CPU."""

    architecture: str
    updates: int
    payload_bytes: int
    ingest_ms: float
    merge_ms: float


def journal_cost(architecture: str, updates: int, recipe: str = DEFAULT_RECIPE) -> Cost:
    """Take so many updates of a network in, and merge them from the journal."""
    with tempfile.TemporaryDirectory() as name, Ledger(Path(name) / "ledger") as ledger:
        room = _room(Path(name), architecture, recipe)
        try:
            agents = _members(room, updates, ledger)
            while rounds.advance(room):
                _deliver(room, agents)
            for agent in agents.values():
                for offer in list(agent.working.values()):
                    agent.train(offer)
            payload_bytes = max(len(entry.payload) for agent in agents.values() for entry in agent.outbox.values())
            ingest_s = sum(_upload(room, agents, agent) for agent in agents.values())
            rounds.advance(room)  # to merging: which updates are its own is decided now
            with room.store.reading() as session:
                current = planning.newest_round(session)
            assert current is not None
            begin_ns = time.process_time_ns()
            merge_journal(room, current)
            merge_ms = (time.process_time_ns() - begin_ns) / 1e6
        finally:
            room.store.close()
    return Cost(architecture, updates, payload_bytes, 1e3 * ingest_s / updates, merge_ms / updates)


def _room(folder: Path, architecture: str, recipe: str) -> Room:
    job = Job(architecture, rounds=1, recipe=recipe, precisions=(Precision.parse(PRECISION),), quorum=1.0)
    key = SigningKey(bytes(32))
    store, blobs = Store(folder / DATABASE), Blobs(folder / BLOBS)
    room = Room(store=store, blobs=blobs, topics=FLEET, job=job, server_key=key.public)
    with room.store.transaction() as session:  # as a later round finds it: with the profile that the first one derives
        session.add(
            Model(version=0, digest=blobs.put(base_of(architecture).to_bytes()), made_at=0.0, precisions=[PRECISION])
        )
    versions.prepare(room)
    return room


def _members(room: Room, count: int, ledger: Ledger) -> dict[str, VirtualAgent]:
    token = create_token(room, uses=count, ttl_s=60.0)
    agents = {}
    for index in range(count):
        agent = VirtualAgent(f"v-{index:04d}", index, FLEET, ledger)
        join(room, device=agent.name, public_key=agent.key.public.raw, token=token)
        agent.will()
        for message in agent.introduce():
            handlers.on_message(room, message.topic, message.data)
        agents[agent.name] = agent
    return agents


def _deliver(room: Room, agents: dict[str, VirtualAgent]) -> list[Outgoing]:
    """Carry what the outbox holds to the devices; returns what they answer."""
    answers: list[Outgoing] = []
    with room.store.transaction() as session:
        rows = outbox.pending(session)
        outbox.done(session, *(row.id for row in rows))
    for row in rows:
        name = row.topic.split("/")[4]
        match outbox.message_of(row):
            case Offer() | Need() | Receipt() as message if name in agents:
                answers.extend(agents[name].on_opened(message, 0.0))
            case _:
                pass
    return answers


def _upload(room: Room, agents: dict[str, VirtualAgent], agent: VirtualAgent) -> float:
    """Hand a device's update in, to its receipt; the CPU seconds that the aggregator took."""
    messages, spent_ns = list(agent.due(0.0)), 0
    while messages:
        begin_ns = time.process_time_ns()
        for message in messages:
            handlers.on_message(room, message.topic, message.data)
        spent_ns += time.process_time_ns() - begin_ns
        messages = _deliver(room, agents)
    assert not agent.outbox, "no receipt came"
    return spent_ns / 1e9
