"""The fleet as a whole, as the API and the page show it: how many, how much, and what was learned; reading only."""

from collections import Counter
from itertools import accumulate
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator import readers
from aggregator.room import Room
from aggregator.store import Device, Energy, Export, Model, Pause, Update
from aggregator.views import LearningPoint, StatusView, SummaryView
from protocol.precision import Precision


def status(session: Session, room: Room, broker: str) -> StatusView:
    """Where the fleet stands.

    Args:
        session: where to read.
        room: the core.
        broker: its URL, as whoever asks can reach it.
    """
    row, live = readers.newest_round(session), readers.live(session)
    paused = session.get(Pause, ())
    return StatusView(
        fleet=room.topics.fleet,
        job=room.name,
        architecture=room.job.architecture,
        round=row.number if row else 0,
        state=row.state if row else "",
        rounds_planned=room.job.last_round or 0,
        paused=paused is not None or bool(room.space.complaint),
        paused_because=paused.because if paused is not None else room.space.complaint,
        model_version=readers.newest_version(session),
        devices=len(live),
        online=sum(device.status == "online" for device in live),
        server_key=room.server_key.raw.hex(),
        broker=broker,
        live=live,
    )


def summary(session: Session) -> SummaryView:
    """Devices by state and precision, bytes against 32-bit floats, and joules."""
    columns = (Device.revoked, Device.status, Device.precision)
    kinds = session.execute(select(*columns, func.count()).where(Device.job == session.info["job"]).group_by(*columns))
    states: Counter[str] = Counter()
    precisions: Counter[str] = Counter()
    for revoked, status, precision, count in kinds:
        states["revoked" if revoked else status] += count
        if not revoked:
            precisions[precision or "undecided"] += count
    sent, fp32 = readers.update_bytes(session)
    return SummaryView(
        states=dict(states),
        precisions=dict(precisions),
        update_bytes=sent,
        update_fp32_bytes=fp32,
        energy=readers.energy_totals(session),
    )


def groups(session: Session) -> list[str]:
    """Every group that a device belongs to."""
    return sorted(session.scalars(select(Device.group).where(Device.group != "").distinct()))


def learning(session: Session) -> list[LearningPoint]:
    """Every rated export in the order of versions, with what the fleet had sent and spent until then."""
    sent = _until(session, Update.round, func.sum(Update.payload_bytes), Update.accepted)
    fp32 = _until(session, Update.round, func.sum(Update.fp32_bytes), Update.accepted)
    spent = _until(session, Energy.round, func.sum(Energy.energy_mj))
    rows = select(Export, Model.made_at).join(Model, Model.version == Export.version)
    order = rows.where(Export.accuracy.is_not(None)).order_by(Export.version, Export.precision)
    return [
        LearningPoint(
            version=export.version,
            made_at=made_at,
            precision=export.precision,
            weight_bits=weight_bits(export.precision),
            accuracy=export.accuracy or 0.0,
            model_bytes=export.model_bytes,
            update_bytes=_at(sent, export.version),
            update_fp32_bytes=_at(fp32, export.version),
            energy_mj=_at(spent, export.version),
        )
        for export, made_at in session.execute(order)
    ]


def weight_bits(precision: str) -> int:
    """Bits of a weight at a precision."""
    return Precision.parse(precision).weight_bits


def _until(session: Session, by: Any, sum_: Any, *meant: Any) -> list[tuple[int, Any]]:
    """Sums of everything up to and with each round that has something."""
    rows = session.execute(select(by, sum_).where(*meant).group_by(by).order_by(by)).all()
    return list(zip([number for number, _ in rows], accumulate(part or 0 for _, part in rows), strict=True))


def _at(sums: list[tuple[int, Any]], number: int) -> Any:
    """The last sum not after a round."""
    return next((total for last, total in reversed(sums) if last <= number), 0)
