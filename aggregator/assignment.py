"""Rows of the store as what is allocated for, and decisions back into the rows."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import devices
from aggregator.allocate.accuracy import expected
from aggregator.allocate.history import believe
from aggregator.allocate.limits import Limits
from aggregator.allocate.options import Common, Member, Previous, latencies
from aggregator.allocate.rules import FLEET_ENERGY, FLEET_UPLINK, Decision
from aggregator.allocate.trial import trial
from aggregator.allocate.ways import Way
from aggregator.ledger import CHANNEL
from aggregator.planning import offer_of
from aggregator.room import Room
from aggregator.store import Device, Export, Task, Update
from protocol.codec.recipe import Recipe
from protocol.energy import TRAINING_PASSES
from protocol.messages import EnergySource
from protocol.precision import Precision

RATED_VERSIONS: Final = 3
"""Whose ratings are averaged: single rounds swing by points, and older ones are of a worse model."""

Choices = dict[str, Decision | str]
"""By device; for one that runs none of the fleet's precisions, why."""


def choose_all(session: Session, room: Room, trained: Collection[str], *, over: bool) -> Choices:
    """What every member should do, decided together.

    A device that trains may get any precision of the job. One that does not, and everyone once the job is over, gets
    one that has a trained profile: activation steps and moments of a neighbouring precision make a poor model.
    """
    return _chosen(session, room, devices.members(session), (), trained, over=over)


def assign(session: Session, room: Room, device: Device, trained: Collection[str], *, over: bool) -> None:
    """Decide for one device; the others go on as they are, and so much less of the fleet's limits is left."""
    others = [each for each in devices.members(session) if each.id != device.id] if room.job.chooses_together else []
    apply(device, _chosen(session, room, [device], others, trained, over=over)[device.id])


def apply(device: Device, choice: Decision | str) -> None:
    """Write a choice into its row."""
    if isinstance(choice, str):
        device.precision, device.reason, device.decision = "", choice, {}
    else:
        device.precision, device.reason = str(choice.option.precision), choice.reason
        device.decision = dict(choice.inputs)


def _chosen(
    session: Session,
    room: Room,
    rows: Sequence[Device],
    others: Sequence[Device],
    trained: Collection[str],
    *,
    over: bool,
) -> Choices:
    offered = {row.id: _offered(room, row, trained, over=over) for row in rows}
    runnable = {row.id: devices.runnable(row, offered[row.id]) for row in rows}
    able = [row for row in rows if runnable[row.id]]
    members = [_member(session, room, row, runnable[row.id]) for row in able]
    common = _common(session, room, [*rows, *others], others)
    decided = dict(zip([row.id for row in able], room.policy.choose(common, members), strict=True))
    return {
        row.id: decided.get(row.id, f"it runs none of the fleet's precisions: {', '.join(map(str, offered[row.id]))}")
        for row in rows
    }


def _offered(room: Room, row: Device, trained: Collection[str], *, over: bool) -> tuple[Precision, ...]:
    offered = room.job.precisions
    if trained and (over or not row.birth["trains"]):
        return tuple(precision for precision in offered if str(precision) in trained)
    return offered


def _common(session: Session, room: Room, rows: Sequence[Device], others: Sequence[Device]) -> Common:
    job = room.job
    samples = [_samples(row) for row in rows if _samples(row)]
    used = [row.decision.get("uses", {}) for row in others]

    def left(limit: float, name: str) -> float | None:
        return max(0.0, limit - sum(use.get(name, 0.0) for use in used)) if limit else None

    return Common(
        network=job.network,
        accuracy=expected(job.precisions, _rated(session)),
        rounds_per_day=job.rounds_per_day,
        mean_samples=sum(samples) / len(samples) if samples else 0.0,
        uplink_mj=lambda payload_bytes: CHANNEL.up_mj(payload_bytes, job.distance_km),
        j_per_day=left(job.fleet_j_per_day, FLEET_ENERGY),
        uplink_bytes=left(job.fleet_uplink_bytes, FLEET_UPLINK),
        least={} if others else {str(each): job.min_per_precision for each in job.precisions if job.min_per_precision},
    )


def _rated(session: Session) -> dict[str, list[float]]:
    """Accuracies of the newest exports, by precision."""
    rows = select(Export.precision, Export.accuracy).where(Export.accuracy.is_not(None)).order_by(Export.version.desc())
    rated = defaultdict[str, list[float]](list)
    for precision, accuracy in session.execute(rows):
        if accuracy is not None and len(rated[precision]) < RATED_VERSIONS:
            rated[precision].append(accuracy)
    return rated


def _member(session: Session, room: Room, row: Device, precisions: Sequence[Precision]) -> Member:
    costs = devices.costs(row)
    believed = believe(costs, row.decision.get("history_mj", {}))
    return Member(
        name=row.id,
        precisions=tuple(precisions),
        inferences_per_day=row.birth["inferences_per_day"],
        limits=devices.limits(row),
        costs=believed.energy_mj,
        latency_ms=latencies(costs),
        samples=_samples(row),
        training_mj=_training_mj(session, row) if room.job.rounds_per_day else None,
        ways=_ways(room, row),
        previous=_previous(row),
        doubts=believed.doubts,
    )


def _training_mj(session: Session, row: Device) -> float | None:
    """What the device last measured its training to take, for a picture once; None if it never did."""
    measured = select(Update, Task).join(Task, Task.id == Update.task).where(Update.device == row.id)
    measured = measured.where(Update.energy_source == EnergySource.MEASURED.value, Update.accepted, Update.samples > 0)
    newest = session.execute(measured.order_by(Update.received_at.desc()).limit(1)).first()
    if newest is None:
        return None
    update, task = newest
    passes = offer_of(task).epochs + 1 / TRAINING_PASSES  # and once more forward, for the moments
    return float(update.energy_mj / (update.samples * passes))


def _samples(row: Device) -> int:
    samples: int = row.birth["samples"] if row.birth["trains"] else 0
    return samples


def _ways(room: Room, row: Device) -> tuple[Way, ...]:
    """How a device may take part: with the job's recipes that it has the codecs for, and the job's epochs."""
    job = room.job
    usual = Way(job.recipe, job.epochs)
    if not _samples(row):
        return (Way("", 0),)
    if not (job.recipes or job.epoch_choices or job.rounds_per_day or job.fleet_uplink_bytes):
        return (usual,)
    known = [each for each in job.all_recipes if Recipe.parse(each).stages <= set(row.birth["codecs"])]
    ways = [_way(job.architecture, recipe, epochs) for recipe in known for epochs in job.all_epochs]
    return tuple(ways) or (usual,)


def _way(architecture: str, recipe: str, epochs: int) -> Way:
    tried = trial(architecture, recipe)
    return Way(recipe, epochs, tried.payload_bytes, tried.error)


def _previous(row: Device) -> Previous | None:
    decision: dict[str, Any] = row.decision
    if not row.precision or "limits" not in decision:
        return None
    return Previous(
        precision=row.precision,
        recipe=decision["recipe"],
        epochs=decision["epochs"],
        limits=Limits.from_names(decision["limits"]),
        inferences_per_day=decision["inferences_per_day"],
    )
