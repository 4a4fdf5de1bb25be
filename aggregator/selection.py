"""Whom a round asks, of those who are there: who has energy left, whose turn it is, and a few more than are wanted.

K. Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019, arXiv 1902.01046, ask for more
devices than they need, since some drop out. Here it is as many more as dropped out before: each device counts for the
share of its last offers that it answered, and the smallest number is asked whose shares add up to what is wanted.

Whose turn it is: who took part least in the last rounds; among equals the seed draws. So no device is left out for
ever, and an unreliable one is not asked less, but counted on less.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import Final

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from aggregator.devices import limits
from aggregator.store import Device, Energy, Round, Task, TaskState, Update

DAY_S: Final = 86_400.0
REMEMBERED: Final = 20
"""Rounds that a device's history goes back: long enough for a share in twentieths, short enough to forgive."""
MOST: Final = 2.0
"""At most this many times what is wanted is asked: a fleet of which half drops out has another trouble."""
SHORTEST_S: Final = 10.0
"""No deadline is nearer: a broker that restarts takes as long."""
MJ: Final = 1e-3


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one device.

    Attributes:
        answered: offers that became an accepted update.
        asked: offers that are decided.
        part_s: seconds from the opening of a round to its update, newest first.
    """

    answered: int = 0
    asked: int = 0
    part_s: tuple[float, ...] = ()

    @property
    def reliability(self) -> float:
        """Share of offers that it answers, one half of one more offer being supposed for a start."""
        return (self.answered + 0.5) / (self.asked + 0.5) if self.asked else 1.0


NEW: Final = History()


def histories(session: Session, before: int) -> dict[str, History]:
    """Of every device in the last rounds before one, by name."""
    since = Task.round >= before - REMEMBERED
    asked, answered = defaultdict[str, int](int), defaultdict[str, int](int)
    decided = Task.state.in_({TaskState.ACCEPTED, TaskState.REFUSED, TaskState.MISSED})
    counts = select(Task.device, Task.state, func.count()).where(since, decided).group_by(Task.device, Task.state)
    for device, state, count in session.execute(counts):
        asked[device] += count
        answered[device] += count if state is TaskState.ACCEPTED else 0
    part_s = defaultdict[str, list[float]](list)
    took = select(Update.device, Update.received_at - Round.opened_at).join(
        Round, (Round.job == Update.job) & (Round.number == Update.round)
    )
    for device, seconds in session.execute(
        took.where(Update.accepted, Update.round >= before - REMEMBERED).order_by(Update.round.desc())
    ):
        part_s[device].append(seconds)
    return {device: History(answered[device], asked[device], tuple(part_s[device])) for device in asked}


def spent_in_a_day(now: float) -> Select[str, float, int]:
    """By device, what the ledger (mJ) has for rounds that were opened within a day before `now`, and how many."""
    sums = select(Energy.device, func.sum(Energy.energy_mj), func.count(Energy.round.distinct()))
    of_round = (Round.job == Energy.job) & (Round.number == Energy.round)
    return sums.join(Round, of_round).where(Round.opened_at > now - DAY_S).group_by(Energy.device)


def with_energy_left(session: Session, devices: Iterable[Device], now: float) -> list[Device]:
    """Those whose spending of the last day, and one more round like their usual one, is within their budget."""
    rows = session.execute(spent_in_a_day(now))
    spent = {device: (MJ * energy_mj, rounds) for device, energy_mj, rounds in rows}
    return [device for device in devices if _fits(device, *spent.get(device.id, (0.0, 0)))]


def _fits(device: Device, spent_j: float, rounds: int) -> bool:
    budget = limits(device).j_per_day
    return budget is None or spent_j + spent_j / max(rounds, 1) <= budget


def choose(
    devices: Sequence[Device], wanted: int, known: Mapping[str, History], draw: Mapping[str, int], most: int
) -> list[Device]:
    """Whom to ask, by name.

    Args:
        devices: those who are there.
        wanted: how many updates the round wants; 0 for everybody's.
        known: what is remembered of each.
        draw: a number for each, from the seed.
        most: never more than so many.
    """
    turns = sorted(devices, key=lambda device: (known.get(device.id, NEW).answered, draw[device.id]))
    if not wanted:
        return sorted(turns[:most], key=lambda device: device.id)
    chosen: list[Device] = []
    counted_on = 0.0
    for device in turns[: min(most, int(MOST * wanted))]:
        if counted_on >= wanted - 1e-9:
            break
        chosen.append(device)
        counted_on += known.get(device.id, NEW).reliability
    return sorted(chosen, key=lambda device: device.id)


def deadline_s(chosen: Iterable[Device], known: Mapping[str, History], factor: float, longest_s: float) -> float:
    """How long a round of these devices collects: `factor` times what four of five of them take, from their history.

    Where less than half of them have one it is the longest, as it is with a factor of 0.
    """
    parts_s = [known.get(device.id, NEW).part_s for device in chosen]
    known_s = sorted(median_high(part_s) for part_s in parts_s if part_s)
    if not factor or not known_s or len(known_s) < len(parts_s) / 2:
        return longest_s
    return min(longest_s, max(SHORTEST_S, factor * known_s[int(0.8 * (len(known_s) - 1) + 0.5)]))
