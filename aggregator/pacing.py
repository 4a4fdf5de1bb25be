"""A policy's (`rates`) place in the product: what it sees of the rounds so far, from the store, and what it decided.

What it sees of a round is kept with the round, as are its decisions, so a restart decides the same. Aborted rounds and
calibrations teach nothing, but what they sent was spent. Energy here is that of updates and of the base models that
every device of a round needs, at the prices of the air; what else devices fetch is in the ledger and no policy's doing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import devices, versions
from aggregator.ledger import CHANNEL
from aggregator.planning import offer_of, profiles_of, tasks_of
from aggregator.rates import FIXED, policy
from aggregator.rates.base import Rates, Seen, Spreads, from_plain, spreads_of_model, to_plain
from aggregator.rates.prices import prices_of, side_bytes
from aggregator.room import Room
from aggregator.store import Device, Model, Round, Update

SOME_PICTURES = 1
"""Behind an update, so that it has moments."""


def decide(room: Room, number: int, model: Model, invited: Sequence[Device]) -> dict[str, Any]:
    """How round `number` is coded, as it is kept with the round; empty where nothing is adapted.

    Raises:
        BudgetError: nothing fits the budget.
    """
    job = room.job
    if job.rates == FIXED or job.calibrates(number):
        return {}
    weights = spreads_of_model(versions.load(room, model))
    with room.store.reading() as session:
        seen = _seen(session, room, number, weights, model, invited)
    rates = policy(job.rates, job.recipe, job.downlink).rates(seen)
    ups = dict(zip((device.id for device in invited), rates.up, strict=True))
    return {**asdict(rates), "up": ups, "weights": to_plain(weights)}


def with_updates(session: Session, room: Room, merged: Round, spreads: Spreads) -> dict[str, Any]:
    """What is kept of a round whose updates are all there: how far they reach, and its energy, which is final now."""
    if not spreads:
        return merged.coding
    return {**merged.coding, "updates": to_plain(spreads), "air_mj": air_mj(session, room, merged.number)}


def air_mj(session: Session, room: Room, number: int) -> tuple[float, float]:
    """Energy of a round's updates and base models on the air, modelled."""
    distance_km = room.job.distance_km
    sent = session.scalars(select(Update.payload_bytes).where(Update.round == number)).all()
    offers = [offer_of(task) for task in tasks_of(session, number)]
    common = {offer.newest.digest: offer.newest.payload_bytes for offer in offers if offer.broadcast}
    alone = [offer.newest.payload_bytes for offer in offers if not offer.broadcast]
    down_mj = sum(CHANNEL.down_mj(size, [distance_km]) for size in [*common.values(), *alone])
    return sum(CHANNEL.up_mj(size, distance_km) for size in sent), down_mj


def _seen(session: Session, room: Room, number: int, weights: Spreads, model: Model, invited: Sequence[Device]) -> Seen:
    job = room.job
    earlier = session.scalars(select(Round).where(Round.number < number).order_by(Round.number)).all()
    spent = {row.number: row.coding.get("air_mj") or air_mj(session, room, row.number) for row in earlier}
    merged = [row for row in earlier if "updates" in row.coding]
    samples = [device.birth["samples"] for device in invited]
    distances_km = [job.distance_km] * len(invited)
    names = max((profiles_of(room, number, device, model) for device in invited), key=len)
    last_up_mj, last_down_mj = spent[merged[-1].number] if merged else (0.0, 0.0)
    return Seen(
        number=len(merged) + 1,
        rounds=job.rounds and max(job.rounds - number, 0) + len(merged) + 1,
        shares=[count / sum(samples) for count in samples],
        loss=[_loss(session, row.number) for row in merged],
        weights=[*(from_plain(row.coding["weights"]) for row in merged), weights],
        updates=[from_plain(row.coding["updates"]) for row in merged],
        spent_j=sum(map(sum, spent.values())) / 1e3,
        last_j=(last_up_mj / 1e3, last_down_mj / 1e3),
        last=_rates(merged[-1].coding) if merged else None,
        fleet=len(devices.members(session)),
        prices=prices_of(CHANNEL, distances_km, distances_km),
        side_bytes=side_bytes(job.architecture, names, SOME_PICTURES),
    )


def _loss(session: Session, number: int) -> float:
    """Mean over the pictures of a round."""
    rows = session.execute(select(Update.samples, Update.loss).where(Update.round == number, Update.accepted)).all()
    return sum(samples * loss for samples, loss in rows) / sum(samples for samples, _ in rows)


def _rates(decided: Mapping[str, Any]) -> Rates:
    return Rates(tuple(decided["up"].values()), decided["down"], decided["reason"], decided["up_step"])
