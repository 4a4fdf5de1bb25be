"""Updates that come after their round: when they still count, and how much.

J. Nguyen, K. Malik, H. Zhan, A. Yousefpour, M. Rabbat, M. Malek, D. Huba, "Federated Learning with Buffered
Asynchronous Aggregation", AISTATS 2022, arXiv 2106.06639 (FedBuff). An update against a model that is s versions old
waits in a buffer and is merged with the next round's, with its weight

    n' = n / √(1 + s)

n being its pictures. Without `buffer`, rounds are as usual and only stragglers come late. With `buffer` K a round
ends as soon as K updates are there, its own and late ones, and whoever is still at work is not asked anew: nobody waits
for anybody.
"""

from math import sqrt

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from aggregator import planning
from aggregator.planning import OPEN_TASKS
from aggregator.room import Room
from aggregator.store import Device, Round, RoundState, Task, Update


def weight(samples: int, staleness: int) -> int:
    """Pictures that an update counts for, a whole number: sums must not depend on their order."""
    return max(1, round(samples / sqrt(1 + staleness)))


def waits(room: Room, current: Round) -> ColumnElement[bool]:
    """Accepted updates that no round has merged and that may go into this one: its own, and late ones."""
    trusted = select(Device.id).where(Device.quarantined == "")
    unmerged = Update.accepted & Update.merged.is_(None) & Update.device.in_(trusted)
    own = Update.round == current.number
    if not room.job.max_staleness or room.job.calibrates(current.number):
        return unmerged & own
    oldest = current.base_version - room.job.max_staleness
    earlier = select(Round.number).where(Round.base_version >= oldest, Round.state != RoundState.ABORTED)
    return unmerged & (own | Update.round.in_(earlier))


def waiting(session: Session, room: Room, current: Round) -> int:
    """How many there are."""
    return session.scalar(select(func.count()).select_from(Update).where(waits(room, current))) or 0


def still_counts(room: Room, over: Round, current_version: int) -> bool:
    """Whether an update of a round that takes none any more may wait for the next."""
    if over.state is RoundState.ABORTED or room.job.calibrates(over.number):
        return False
    return current_version - over.base_version <= room.job.max_staleness and bool(room.job.max_staleness)


def at_work(session: Session, room: Room, number: int) -> set[str]:
    """Devices that owe an update of an earlier round which would still count; only asked for with `buffer`."""
    if not room.job.buffer:
        return set()
    return set(session.scalars(select(Task.device).where(Task.round < number, Task.state.in_(OPEN_TASKS))))


def give_up(session: Session, room: Room, current_version: int) -> None:
    """Count no more on updates that would come too late."""
    old = select(Round.number).where(Round.base_version < current_version - room.job.max_staleness)
    planning.miss(session, Task.round.in_(old))
