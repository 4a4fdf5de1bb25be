"""Rows of the store as what the HTTP door shows; reading only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from aggregator import quarantine, selection
from aggregator.joining import token_name
from aggregator.paging import ALL, Page, Window, page_of
from aggregator.room import Room
from aggregator.store import (
    Applicant,
    Audit,
    Device,
    Energy,
    Export,
    JobSession,
    Model,
    Pause,
    RefusalCount,
    Round,
    Task,
    Token,
    Update,
    User,
)
from aggregator.views import (
    ApplicantView,
    AuditView,
    Cause,
    DeviceDetail,
    DeviceView,
    EnergyEntry,
    EnergyTotal,
    EnergyView,
    ExportView,
    JobView,
    Live,
    ModelView,
    Quarantine,
    Receipt,
    RoundDetail,
    RoundView,
    TaskView,
    TokenView,
    UpdateView,
    UserView,
)

RECEIPTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices are meant; what is empty leaves all.

    Attributes:
        name: a part of it.
        status: online, offline or revoked.
        precision: the chosen one.
        group: where it belongs.
        job: what it works for.
    """

    name: str = ""
    status: str = ""
    precision: str = ""
    group: str = ""
    job: str = ""


EVERY = DeviceFilter()


def _meant(only: DeviceFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if only.name:
        conditions.append(Device.id.contains(only.name, autoescape=True))
    if only.status == "revoked":
        conditions.append(Device.revoked.is_(True))
    elif only.status:
        conditions += [Device.status == only.status, ~Device.revoked]
    if only.precision:
        conditions.append(Device.precision == only.precision)
    if only.group:
        conditions.append(Device.group == only.group)
    if only.job:
        conditions.append(Device.job == only.job)
    return conditions


def device_views(session: Session, window: Window = ALL, only: DeviceFilter = EVERY) -> Page[DeviceView]:
    """Devices by name."""
    return page_of(session, Device, _meant(only), [Device.id], window).map(lambda row: DeviceView(**_device(row)))


def device_detail(session: JobSession, name: str, now: float) -> DeviceDetail | None:
    """One device and what it did for its job; None when there is none of that name."""
    row: Device | None = session.get(Device, name)
    if row is None:
        return None
    session.enter(row.job)
    payload_bytes, fp32_bytes = update_bytes(session, Update.device == name)
    newest = select(Update).where(Update.device == name).order_by(Update.received_at.desc()).limit(RECEIPTS_SHOWN)
    counts = session.scalars(select(RefusalCount).where(RefusalCount.device == name))
    return DeviceDetail(
        **_device(row),
        public_key=row.public_key.hex(),
        birth=row.birth,
        telemetry=row.telemetry,
        decision=row.decision,
        feasible=row.decision.get("feasible", True),
        doubts=row.decision.get("doubts", []),
        update_bytes=payload_bytes,
        update_fp32_bytes=fp32_bytes,
        spent_in_a_day_mj=spent_in_a_day_mj(session, name, now),
        receipts=[Receipt.model_validate(update, from_attributes=True) for update in session.scalars(newest)],
        refusals={count.refusal: count.count for count in counts},
        quarantine=_quarantine(session, row),
    )


def spent_in_a_day_mj(session: Session, device: str, now: float) -> float:
    """What the ledger has of a device for rounds that were opened within a day before `now`."""
    row = session.execute(selection.spent_in_a_day(now).where(Energy.device == device)).first()
    return 0.0 if row is None else row[1]


def token_views(session: Session, now: float) -> list[TokenView]:
    """Join tokens that still let somebody in, the next to expire first."""
    good = select(Token).where(Token.uses_left > 0, Token.expires_at >= now).order_by(Token.expires_at, Token.digest)
    return [
        TokenView(
            name=token_name(row),
            uses_left=row.uses_left,
            made_at=row.made_at,
            expires_at=row.expires_at,
            note=row.note,
            group=row.group,
        )
        for row in session.scalars(good)
    ]


def job_view(room: Room) -> JobView:
    """One job."""
    with room.store.reading() as session:
        current = newest_round(session)
        return JobView(
            name=room.name,
            architecture=room.job.architecture,
            groups=list(room.job.groups),
            rounds_planned=room.job.last_round or 0,
            devices=len(live(session)),
            round=current.number if current else 0,
            state=current.state if current else "",
            paused=session.get(Pause, ()) is not None,
        )


def applicant_views(session: Session) -> list[ApplicantView]:
    """Devices that wait for approval or were rejected, who asked first."""
    rows = session.scalars(select(Applicant).order_by(Applicant.asked_at, Applicant.device))
    return [
        ApplicantView(
            device=row.device,
            public_key=row.public_key.hex(),
            group=row.group,
            asked_at=row.asked_at,
            rejected=row.rejected,
        )
        for row in rows
    ]


def user_views(session: Session) -> list[UserView]:
    """Who has a token for the HTTP door, by name."""
    rows = session.scalars(select(User).order_by(User.name))
    return [UserView.model_validate(row, from_attributes=True) for row in rows]


def audit_views(session: Session, window: Window = ALL, *, newest_first: bool = False) -> Page[AuditView]:
    """The audit log."""
    page = page_of(session, Audit, [], [Audit.id], window, newest_first=newest_first)
    return page.map(lambda row: AuditView.model_validate(row, from_attributes=True))


def live(session: Session) -> list[Live]:
    """What every device of the session's job is doing now."""
    rows = select(Device).where(Device.job == session.info["job"]).order_by(Device.id)
    return [
        Live(
            id=row.id,
            status="revoked" if row.revoked else row.status,
            lifecycle=row.telemetry.get("lifecycle", ""),
            task=row.telemetry.get("task", ""),
            progress=row.telemetry.get("progress", 0.0),
            precision=row.precision,
        )
        for row in session.scalars(rows)
    ]


def round_views(session: Session, window: Window = ALL, *, newest_first: bool = False) -> Page[RoundView]:
    """Rounds in their order, or the other way round."""
    rows = page_of(session, Round, [], [Round.number], window, newest_first=newest_first)
    return rows.map(lambda row: RoundView(**_round(session, row)))


def round_detail(session: Session, number: int) -> RoundDetail | None:
    """One round; None when there is none of that number."""
    row = session.get(Round, number)
    if row is None:
        return None
    tasks = session.scalars(select(Task).where(Task.round == number).order_by(Task.device))
    judged = {update.task: update for update in session.scalars(select(Update).where(Update.round == number))}
    offers = [_task(task, judged.get(task.id)) for task in tasks]
    return RoundDetail(**_round(session, row), offers=offers, rates=row.coding.get("reason", ""))


def energy_view(
    session: Session, number: int | None, device: str | None, window: Window = ALL
) -> tuple[EnergyView, Page[EnergyEntry]]:
    """The ledger: of a round, of a device, of both or all. Entries in pages, the sums of all of them."""
    meant = [*([Energy.round == number] if number is not None else []), *([Energy.device == device] if device else [])]
    key = [Energy.round, Energy.device, Energy.purpose, Energy.source]
    page = page_of(session, Energy, meant, key, window)
    entries = page.map(lambda row: EnergyEntry.model_validate(row, from_attributes=True))
    totals = energy_totals(session, *meant)
    whole_mj = fsum(total.energy_mj for total in totals)
    return EnergyView(entries=entries.rows, totals=totals, total_mj=whole_mj), entries


def energy_totals(session: Session, *meant: Any) -> list[EnergyTotal]:
    """Sums of the ledger by purpose and source, of the entries that are meant."""
    kinds = (Energy.purpose, Energy.source)
    sums = select(*kinds, func.sum(Energy.energy_mj)).where(*meant).group_by(*kinds).order_by(*kinds)
    return [
        EnergyTotal(purpose=purpose, source=source, energy_mj=energy_mj)
        for purpose, source, energy_mj in session.execute(sums)
    ]


def update_bytes(session: Session, *meant: Any) -> tuple[int, int]:
    """Bytes of the accepted updates that are meant, as sent and as 32-bit floats."""
    sums = select(func.sum(Update.payload_bytes), func.sum(Update.fp32_bytes)).where(*meant, Update.accepted)
    payload_bytes, fp32_bytes = session.execute(sums).one()
    return payload_bytes or 0, fp32_bytes or 0


def air_bytes(session: Session) -> tuple[int, int]:
    """What devices say they have sent and received since they started, added up."""
    names = ("sent_bytes", "received_bytes")
    sent, received = session.execute(select(*(func.sum(Device.telemetry[name].as_integer()) for name in names))).one()
    return sent or 0, received or 0


def is_paused(session: Session) -> bool:
    """Whether no round is opened."""
    return bool(session.scalar(select(exists().select_from(Pause))))


def newest_round(session: Session) -> Round | None:
    """The round that is running or ran last."""
    return session.scalar(select(Round).order_by(Round.number.desc()).limit(1))


def update_views(
    session: Session,
    number: int | None = None,
    device: str | None = None,
    window: Window = ALL,
    *,
    newest_first: bool = False,
) -> Page[UpdateView]:
    """The journal, of a round, of a device, of both or whole, in the order of arrival or the other way round."""
    meant = [*([Update.round == number] if number is not None else []), *([Update.device == device] if device else [])]
    rows = page_of(session, Update, meant, [Update.received_at, Update.task], window, newest_first=newest_first)
    return rows.map(lambda row: UpdateView.model_validate(row, from_attributes=True))


def update_view(session: Session, task: str) -> UpdateView | None:
    """The update of one task; None while there is none."""
    row = session.get(Update, task)
    return UpdateView.model_validate(row, from_attributes=True) if row else None


def model_views(session: Session, window: Window = ALL) -> Page[ModelView]:
    """Versions, newest first."""
    rows = page_of(session, Model, [], [Model.version], window, newest_first=True)
    return rows.map(lambda row: _model(session, row))


def model_view(session: Session, version: int) -> ModelView | None:
    """One version; None when there is none."""
    row = session.get(Model, version)
    return _model(session, row) if row else None


def newest_version(session: Session) -> int:
    """The current version of the global model."""
    return session.scalar(select(func.max(Model.version))) or 0


def _device(row: Device) -> dict[str, Any]:
    telemetry = row.telemetry
    return {
        "id": row.id,
        "group": row.group,
        "job": row.job,
        "status": row.status,
        "revoked": row.revoked,
        "quarantined": row.quarantined,
        "seen_at": row.seen_at,
        "joined_at": row.joined_at,
        "precision": row.precision,
        "reason": row.reason,
        "budget_j_per_day": row.budget_j_per_day,
        "stated_j_per_day": row.birth.get("budget_j_per_day", 0.0),
        "lifecycle": telemetry.get("lifecycle", ""),
        "progress": telemetry.get("progress", 0.0),
        "samples": row.birth.get("samples", 0),
        "sent_bytes": telemetry.get("sent_bytes", 0),
        "received_bytes": telemetry.get("received_bytes", 0),
        "model_version": telemetry.get("model_version", 0),
    }


def _quarantine(session: Session, row: Device) -> Quarantine:
    given = quarantine.causes(session, row.id)[-RECEIPTS_SHOWN:]
    return Quarantine(
        reason=row.quarantined,
        since=row.quarantined_at,
        until=row.quarantined_until,
        on_probation=row.on_probation,
        causes=[Cause.model_validate(cause, from_attributes=True) for cause in given],
    )


def _round(session: Session, row: Round) -> dict[str, Any]:
    states: Sequence[Any] = session.scalars(select(Task.state).where(Task.round == row.number)).all()
    payload_bytes, fp32_bytes = update_bytes(session, Update.round == row.number)
    return {
        "number": row.number,
        "state": row.state,
        "base_version": row.base_version,
        "opened_at": row.opened_at,
        "deadline_at": row.deadline_at,
        "closed_at": row.closed_at,
        "note": row.note,
        "tasks": dict(Counter(state.value for state in states)),
        "update_bytes": payload_bytes,
        "update_fp32_bytes": fp32_bytes,
    }


def _task(row: Task, update: Update | None) -> TaskView:
    names = ("id", "device", "state", "precision", "recipe", "note")
    view = TaskView(**{name: getattr(row, name) for name in names})
    if update is not None:
        view.refusal, view.received_at = update.refusal, update.received_at
        view.payload_bytes, view.train_s = update.payload_bytes, update.train_s
    return view


def _model(session: Session, row: Model) -> ModelView:
    exports = session.scalars(select(Export).where(Export.version == row.version).order_by(Export.precision))
    views = [ExportView.model_validate(export, from_attributes=True) for export in exports]
    return ModelView(version=row.version, digest=row.digest, made_at=row.made_at, exports=views)
