"""The aggregator in figures for Prometheus. What the store knows is counted when somebody asks; the rest is observed.

Labels are states, codes, purposes and precisions, all from short lists; no device, round or task is ever one, so that
the number of series does not grow with the fleet.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator import readers
from aggregator.room import Room
from aggregator.store import Device, Outgoing, RefusalCount, Round, Update

STEP_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
"""Bounds of the histograms: from a small network on a desk to a ResNet18 of a thousand devices."""
MERGE: Final = "merge"
EXPORT: Final = "export"
MJ: Final = 1e-3


class Metrics:
    """All figures of one aggregator, in a registry of their own.

    Args:
        room: the core; only its store and folder are looked at.
        connected: whether the broker is there.
        waiting: how many events wait for the coordinator.
        lag_s: how long ago the coordinator last looked at its queue.
    """

    def __init__(
        self, room: Room, *, connected: Callable[[], bool], waiting: Callable[[], int], lag_s: Callable[[], float]
    ) -> None:
        self.registry = CollectorRegistry()
        steps = "Seconds that a step of the aggregator took"
        self._steps = Histogram("bitfleet_step_seconds", steps, ["step"], buckets=STEP_S, registry=self.registry)
        for step in (MERGE, EXPORT):
            self._steps.labels(step)
        self.registry.register(_Fleet(room, connected, waiting, lag_s))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Observe how long the block takes, if it succeeds."""
        began = time.perf_counter()
        yield
        self._steps.labels(step).observe(time.perf_counter() - began)


class _Fleet(Collector):
    """What the store and the process know now."""

    def __init__(
        self, room: Room, connected: Callable[[], bool], waiting: Callable[[], int], lag_s: Callable[[], float]
    ) -> None:
        self._room, self._connected, self._waiting, self._lag_s = room, connected, waiting, lag_s

    def describe(self) -> Iterable[Metric]:
        """Nothing: to register is not to ask the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every figure."""
        with self._room.store.of(None).reading() as session:
            yield from _rounds(session)
            yield from _updates(session)
            yield from _devices(session)
            yield _energy(session)
            yield _gauge("outbox_messages", "Messages that the broker has not taken yet", _count(session, Outgoing.id))
        yield from _jobs(self._room.rooms)
        disk = shutil.disk_usage(self._room.store.path.parent)
        yield _gauge("disk_free_bytes", "Free space where the aggregator keeps its state", disk.free)
        yield _gauge("database_bytes", "Size of the database with its journal", _size(self._room.store.path))
        yield _gauge("broker_connected", "1 while the broker is connected", self._connected())
        yield _gauge("coordinator_queue_length", "Events that wait for the one thread that writes", self._waiting())
        yield _gauge("coordinator_lag_seconds", "Seconds since that thread last looked at its queue", self._lag_s())


def _size(database: Path) -> int:
    return sum(file.stat().st_size for file in database.parent.glob(f"{database.name}*"))


def _rounds(session: Session) -> Iterator[Metric]:
    rounds = _gauge("rounds", "Rounds by job and state", labels=["job", "state"])
    for job, state, count in session.execute(
        select(Round.job, Round.state, func.count()).group_by(Round.job, Round.state)
    ):
        rounds.add_metric([job, state.value], count)
    yield rounds


def _updates(session: Session) -> Iterator[Metric]:
    judged = _counter("updates", "Judged updates; code is accepted, or why it was refused", ["code"])
    for accepted, code, count in session.execute(
        select(Update.accepted, Update.refusal, func.count()).group_by(Update.accepted, Update.refusal)
    ):
        judged.add_metric(["accepted" if accepted else code], count)
    yield judged
    refused = _counter("refused_messages", "Messages that were refused, by stable code", ["code"])
    counts = select(RefusalCount.refusal, func.sum(RefusalCount.count)).group_by(RefusalCount.refusal)
    for code, count in session.execute(counts):
        refused.add_metric([code], count)
    yield refused
    sent, fp32 = readers.update_bytes(session)
    size = _counter("update_bytes", "Accepted updates: as sent, and as 32-bit floats would have been", ["form"])
    size.add_metric(["sent"], sent)
    size.add_metric(["fp32"], fp32)
    yield size


def _devices(session: Session) -> Iterator[Metric]:
    devices = _gauge("devices", "Devices by state and chosen precision", labels=["state", "precision"])
    rows = select(Device.revoked, Device.status, Device.precision, func.count())
    for revoked, status, precision, count in session.execute(
        rows.group_by(Device.revoked, Device.status, Device.precision)
    ):
        devices.add_metric(["revoked" if revoked else status, precision or "undecided"], count)
    yield devices
    air = _gauge("device_bytes", "What devices say they have sent and received", labels=["direction"])
    sent, received = readers.air_bytes(session)
    air.add_metric(["up"], sent)
    air.add_metric(["down"], received)
    yield air


def _energy(session: Session) -> Metric:
    joules = _counter("energy_joules", "The ledger, by purpose and how it was obtained", ["purpose", "source"])
    for total in readers.energy_totals(session):
        joules.add_metric([total.purpose, total.source], MJ * total.energy_mj)
    return joules


def _jobs(rooms: Mapping[str, Room]) -> Iterator[Metric]:
    number = _gauge("round_number", "The round that runs or ran last", labels=["job"])
    paused = _gauge("paused", "1 while no round is opened", labels=["job"])
    version = _gauge("model_version", "The current version of the global model", labels=["job"])
    rated = "Of the newest version's integer models, on held-out pictures"
    accuracy = _gauge("model_accuracy", rated, labels=["job", "precision"])
    size = _gauge("model_bytes", "Of the newest version's ONNX files", labels=["job", "precision"])
    for name, room in rooms.items():
        with room.store.reading() as session:
            newest, made = readers.newest_round(session), readers.newest_version(session)
            model = readers.model_view(session, made)
            paused.add_metric([name], readers.is_paused(session))
        number.add_metric([name], newest.number if newest else 0)
        version.add_metric([name], made)
        for export in model.exports if model else []:
            size.add_metric([name, export.precision], export.model_bytes)
            if export.accuracy is not None:
                accuracy.add_metric([name, export.precision], export.accuracy)
    yield from (number, paused, version, accuracy, size)


def _gauge(name: str, what: str, value: float | None = None, *, labels: list[str] | None = None) -> Any:
    return GaugeMetricFamily(f"bitfleet_{name}", what, value=value, labels=labels)


def _counter(name: str, what: str, labels: list[str]) -> Any:
    return CounterMetricFamily(f"bitfleet_{name}", what, labels=labels)


def _count(session: Session, column: Any) -> int:
    return session.scalar(select(func.count(column))) or 0
