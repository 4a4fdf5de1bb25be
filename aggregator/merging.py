"""The journal of a round, merged as the job says, and which of its updates stand out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import select

from aggregator import staleness, versions
from aggregator.merge import PartialSum
from aggregator.model import GlobalModel
from aggregator.rates.base import Reach, Spreads
from aggregator.robust import Entry, Merging, settle
from aggregator.room import Room
from aggregator.store import Device, Model, Round, Task, Update
from aggregator.strikes import standing_out
from protocol.codec.payload import CodedPayload, read


class Merged(NamedTuple):
    """A candidate, how far the updates reach where that is asked for, and causes for doubt by task, in a sentence."""

    candidate: GlobalModel
    spreads: Spreads
    doubts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Row:
    """An accepted update; `samples` is what it counts for, which is less where it is late."""

    task: str
    digest: str
    samples: int
    norm: float
    precision: str


def _row(current: Round, task: str, digest: str, samples: int, norm: float, precision: str, base_version: int) -> _Row:
    return _Row(task, digest, staleness.weight(samples, current.base_version - base_version), norm, precision)


def merge_journal(room: Room, current: Round) -> Merged:
    """Merge the updates that a round has taken for itself, but those of devices that were quarantined since.

    No more is in memory than is added up together, or than a slice of all updates.

    Raises:
        MergeError: no update, or too few for the rule.
        BlobError, ModelError, RemoteProtocolError: something on disk is missing or damaged.
        OSError: the disk is full; nothing is left on it.
    """
    with room.store.reading() as session:
        base = versions.load(room, session.get_one(Model, current.base_version))
        columns = select(Update.task, Update.digest, Update.samples, Update.norm, Task.precision, Round.base_version)
        of_round = (Round.job == Update.job) & (Round.number == Update.round)
        joined = (
            columns.join(Task, Task.id == Update.task).join(Device, Device.id == Update.device).join(Round, of_round)
        )
        mine = joined.where(Update.merged == current.number, Device.quarantined == "")
        rows = [_row(current, *row) for row in session.execute(mine.order_by(Update.task))]
    reach, merging = _Seen(wanted=bool(current.coding)), Merging.parse(room.job.merge)
    if merging.is_plain:
        return Merged(_added(room, base, rows, reach), reach.mean, _doubts(rows, {}))
    entries = [Entry(row.task, row.digest, row.samples) for row in rows]
    settled = settle(base, merging, entries, room.blobs.get, room.blobs.folder, reach.add)
    return Merged(settled.model, reach.mean, _doubts(rows, settled.distances))


@dataclass
class _Seen:
    """Spreads of the updates, where they are wanted."""

    wanted: bool
    _reach: Reach = field(default_factory=Reach)

    def add(self, update: CodedPayload) -> None:
        if self.wanted:
            self._reach.add(update)

    @property
    def mean(self) -> Spreads:
        return self._reach.mean


def _added(room: Room, base: GlobalModel, rows: Sequence[_Row], seen: _Seen) -> GlobalModel:
    total = PartialSum(base.architecture, vote=room.job.vote)
    for row in rows:
        update = read(room.blobs.get(row.digest))
        total.add(update, row.samples)
        seen.add(update)
    return total.finish(base)


def _doubts(rows: Sequence[_Row], distances: Mapping[str, float]) -> dict[str, str]:
    kinds = {row.task: row.precision for row in rows}
    norms = standing_out({row.task: row.norm for row in rows}, kinds)
    far = standing_out(distances, kinds)
    said = {task: f"it lies {z:.1f} deviations further from the others than is usual" for task, z in far.items()}
    return said | {task: f"its norm is {z:.1f} deviations above the others'" for task, z in norms.items()}
