"""What is known of a device: what it said of itself, and whether it can be asked to work."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from aggregator.allocate.limits import Limits
from aggregator.downlink import Downlink
from aggregator.job import Job
from aggregator.store import Device
from protocol.codec.recipe import Recipe
from protocol.envelope import Envelope, Stamp
from protocol.messages import Birth, Cost, EnergySource, State, Status, Telemetry
from protocol.precision import Precision
from protocol.replay import admit

MODEL_MEMORY: Final = 0.5
"""Of a device's memory: the system, the agent, its trainer and its pictures live in the other half."""
MAINS_J_PER_DAY: Final = 1e12
"""The largest budget an operator can set means none, whatever the device says of itself: mains power."""
MAX_RETRY_S: Final = 24 * 3600.0
"""Longest a device can ask to be left alone; it also bounds what a clock that jumps back can do."""


def admit_envelope(device: Device, envelope: Envelope) -> None:
    """Let a message past the replay guard and remember its stamp.

    Raises:
        Replayed: it was heard before, or is older than one that was.
    """
    seen = {int(number): Stamp(*stamp) for number, stamp in device.stamps.items()}
    seen_now = admit(seen, envelope)
    device.stamps = {str(number): [stamp.boot, stamp.sequence] for number, stamp in seen_now.items()}


def on_state(device: Device, state: State) -> None:
    """Take a state or a last will; a stale one of an older session changes nothing."""
    if state.session >= device.session:
        device.session, device.status = state.session, state.status.value


def on_birth(device: Device, birth: Birth, now: float) -> bool:
    """Take a birth.

    Returns:
        Whether it was taken: a stale one of an older session changes nothing.
    """
    if birth.session < device.session:
        return False
    if birth.session > device.session:
        device.seen_at = now
    device.session = birth.session
    device.birth = {**asdict(birth), "model_digest": birth.model_digest.hex()}
    return True


def facts(birth: Mapping[str, Any]) -> dict[str, Any]:
    """What of a birth is decided by: everything but how often it was said, and the model that runs."""
    return {name: value for name, value in birth.items() if name not in {"session", "model_digest"}}


def on_telemetry(device: Device, telemetry: Telemetry, now: float) -> None:
    """Keep the newest telemetry, with the time it came."""
    device.telemetry = {**asdict(telemetry), "received_at": now}


def members(session: Session) -> list[Device]:
    """Devices that belong to the session's job, or to any, and have introduced themselves, by name."""
    rows = session.scalars(select(Device).where(_belongs(session)).order_by(Device.id))
    return [device for device in rows if device.birth]


def _belongs(session: Session) -> ColumnElement[bool]:
    job = session.info.get("job")
    return ~Device.revoked & ((Device.job == job) if job else true())


def precisions_in_use(session: Session) -> set[str]:
    """What members are to run; asked on every turn of the coordinator, and so without reading their rows."""
    rows = select(Device.precision).where(_belongs(session), Device.precision != "").distinct()
    return set(session.scalars(rows))


def may_be_available(session: Session, now: float) -> int:
    """How many devices are there and not resting: no fewer than `available` gives, without reading what they are."""
    waiting = (Device.retry_at > now) & (Device.retry_at <= now + MAX_RETRY_S)
    rows = select(func.count()).select_from(Device)
    return session.scalar(rows.where(_belongs(session), Device.status == Status.ONLINE.value, ~waiting)) or 0


def available(session: Session, job: Job, now: float) -> list[Device]:
    """Devices that can be asked to train now, by name."""
    return [device for device in members(session) if _ready(device, now) and _able(device, job)]


def _ready(device: Device, now: float) -> bool:
    wait_s = device.retry_at - now
    return device.status == Status.ONLINE and not device.quarantined and not 0 < wait_s <= MAX_RETRY_S


def _able(device: Device, job: Job) -> bool:
    codecs = set(device.birth["codecs"])
    codes = any(Recipe.parse(recipe).stages <= codecs for recipe in job.all_recipes)
    reads = Downlink.parse(job.downlink).stages <= codecs
    return bool(device.precision and device.birth["trains"] and device.birth["samples"] and codes and reads)


def runnable(device: Device, precisions: Iterable[Precision]) -> list[Precision]:
    """Those of `precisions` that the device says it can run, in the same order."""
    return [precision for precision in precisions if str(precision) in device.birth["precisions"]]


def limits(device: Device) -> Limits:
    """What the device must not exceed: by its own word, where 0 means none, or by the operator's, where 0 is 0."""
    birth = device.birth
    return Limits(
        j_per_day=_budget_j_per_day(device),
        latency_ms=birth.get("max_latency_ms") or None,  # births before BF-080 have none
        memory_bytes=MODEL_MEMORY * birth["memory_bytes"] or None,
    )


def _budget_j_per_day(device: Device) -> float | None:
    if device.budget_j_per_day is None:
        return device.birth["budget_j_per_day"] or None
    return None if device.budget_j_per_day >= MAINS_J_PER_DAY else device.budget_j_per_day


def costs(device: Device) -> list[Cost]:
    """Latency and energy of one inference as the device states them."""
    return [_cost(values) for values in device.birth["costs"]]


def _cost(values: dict[str, Any]) -> Cost:
    return Cost(**{**values, "source": EnergySource(values["source"])})
