"""Devices do not flap: a change must be worth it, and must have room.

A new model is a download, a self-test and a session to warm up, and figures jitter: energy by a few per cent from one
measurement to the next, accuracy by a tenth of a point from one round to the next. So what a device does now is worth
`STAY` more than it promises, which is a part of the objective and leaves the best selection well defined; and what
takes more energy than that must leave `ROOM` of the budget. Neither holds where the device's limits or its inferences
have changed since: whoever changes these wants to see it.
"""

from typing import Final

from aggregator.allocate.limits import ENERGY, Limits
from aggregator.allocate.options import Member, Option, Previous

STAY: Final = 0.001
"""A tenth of a point."""
ROOM: Final = 0.05


def standing(member: Member) -> Previous | None:
    """The last decision, if what it was decided from still stands."""
    last = member.previous
    if last is None or (last.limits, last.inferences_per_day) != (member.limits, member.inferences_per_day):
        return None
    return last


def same(option: Option, last: Previous) -> bool:
    """Whether the option is what was decided before."""
    return (str(option.precision), option.way.recipe, option.way.epochs) == (last.precision, last.recipe, last.epochs)


def bonus(option: Option, last: Previous | None) -> float:
    """What staying is worth; half of it where only the way to take part changes."""
    if last is None or str(option.precision) != last.precision:
        return 0.0
    return STAY if same(option, last) else STAY / 2


def has_room(option: Option, now: Option | None, limits: Limits) -> bool:
    """Whether a change from `now`, which still fits, to a costlier option leaves room in the budget."""
    budget = limits.by_name.get(ENERGY)
    if now is None or budget is None or option.j_per_day <= now.j_per_day:
        return True
    return option.j_per_day <= (1 - ROOM) * budget
