"""Why a device does what it does, in a sentence.

"W4A8 needs 310 J/day at its measured 4.1 mJ × 75,000 inferences, its budget leaves 268".

A sentence follows the device's name and its precision, and says of every figure whether it was measured or modelled.
"""

from collections.abc import Sequence

from aggregator.allocate.hysteresis import ROOM, STAY
from aggregator.allocate.limits import ENERGY, LATENCY, MEMORY, Limits, contradiction
from aggregator.allocate.options import Member, Option

_MEGABYTE = 1e6


def chosen(member: Member, option: Option, better: Option | None, *, kept: str = "") -> str:
    """Why this option.

    Args:
        member: whose it is.
        option: what it does.
        better: the cheapest option of the next better precision, None where there is none.
        kept: why that one is not taken although it keeps the member's limits.
    """
    name = str(option.precision)
    if better is None:
        reason = f"{name} is the best it can run"
        if member.limits.j_per_day is None:
            return reason + "; no energy budget is stated (mains power)"
        return f"{reason}: {_sum(member, option)} within {figure(member.limits.j_per_day)} J/day"
    broken = member.limits.broken(better.needs)
    if not broken:
        return kept
    reason = exceeds(member, better, broken[0])
    return f"{reason}; {name} needs {figure(option.inference_j)} ({option.source})" if broken[0] == ENERGY else reason


def exceeds(member: Member, option: Option, limit: str) -> str:
    """By what an option exceeds one of its member's limits."""
    name, limits = str(option.precision), member.limits
    if limit == LATENCY:
        return f"{name} takes {figure(option.latency_ms or 0.0)} ms, its limit is {figure(limits.latency_ms or 0.0)}"
    if limit == MEMORY:
        needs, leaves = apart(option.memory_bytes / _MEGABYTE, (limits.memory_bytes or 0.0) / _MEGABYTE)
        return f"{name} takes {needs} MB, its memory leaves {leaves}"
    left_j = (limits.j_per_day or 0.0) - option.uplink_j - option.training_j
    needs, leaves = apart(option.inference_j, left_j)
    return (
        f"{name} needs {needs} J/day at its {option.source} {figure(option.energy_mj)} mJ ×"
        f" {member.inferences_per_day:,} inferences, its budget leaves {leaves}"
    )


def stays(option: Option, better: Option) -> str:
    """That a change promises too little."""
    points = 100 * (better.gain - option.gain)
    return f"{better.precision} promises {points:.2g} points more, a change takes {100 * STAY:.2g}: it stays as it is"


def lacks_room(member: Member, better: Option) -> str:
    """That a change would leave too little of the budget."""
    budget_j = member.limits.j_per_day or 0.0
    needs, leaves = apart(better.j_per_day, budget_j)
    return f"{better.precision} needs {needs} of {leaves} J/day, a change must leave {ROOM:.0%}: it stays as it is"


def granted_elsewhere(better: Option) -> str:
    """That the fleet's limits are worth more in other devices."""
    return f"{better.precision} keeps its own limits, but within the fleet's other devices gain more"


def infeasible(member: Member, options: Sequence[Option], option: Option) -> str:
    """That nothing keeps the limits, which of them contradict each other, and what would do."""
    limits, name = member.limits, str(option.precision)
    against = contradiction(limits, [each.needs for each in options])
    if against == (ENERGY,):
        return (
            f"nothing fits {figure(limits.j_per_day or 0.0)} J/day; {name} comes nearest: {_sum(member, option)},"
            f" so the smallest budget that works is {figure(option.j_per_day)} J/day"
        )
    stated = " and ".join(f"{limit} of at most {_amount(limit, limits.by_name[limit])}" for limit in against)
    contradict = f"{stated} contradict each other" if len(against) > 1 else f"nothing keeps {stated}"
    needs = option.needs
    would = ", ".join(
        f"{limit} {_amount(limit, needs[limit] or 0.0)}" for limit in limits.broken(needs) if needs[limit] is not None
    )
    return f"{contradict}; {name} comes nearest: it would work with {would}"


def smallest(limits: Limits, options: Sequence[Option]) -> float | None:
    """The smallest budget in J/day with which something keeps all other limits; None where nothing does."""
    others = Limits(None, limits.latency_ms, limits.memory_bytes)
    return min((option.j_per_day for option in options if not others.broken(option.needs)), default=None)


def figure(value: float, digits: int = 3) -> str:
    """Three significant digits, in full above a thousand."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}g}"


def apart(one: float, other: float) -> tuple[str, str]:
    """Two figures, with as many digits as it takes to see which is larger."""
    for digits in (3, 5):
        if figure(one, digits) != figure(other, digits):
            return figure(one, digits), figure(other, digits)
    return f"{one:,.9g}", f"{other:,.9g}"


def _amount(limit: str, value: float) -> str:
    if limit == LATENCY:
        return f"{figure(value)} ms"
    return f"{figure(value / _MEGABYTE)} MB" if limit == MEMORY else f"{figure(value)} J/day"


def _sum(member: Member, option: Option) -> str:
    energy, total = figure(option.energy_mj), figure(option.inference_j)
    return f"{member.inferences_per_day:,} inferences × {energy} mJ ({option.source}) = {total} J/day"
