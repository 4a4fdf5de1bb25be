"""What each device runs and how it takes part: rules to compare, each one small class with one method.

`BestThatFits` looks at one device after the other. `Program` looks at all of them: the most expected accuracy of the
fleet within every device's limits and the fleet's, as one mixed-integer program. A device for which nothing keeps its
limits gets what comes nearest, and is told so; the others are chosen for within what that leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from aggregator.allocate import explain, hysteresis
from aggregator.allocate.accuracy import UNIT
from aggregator.allocate.choices import Choice, Infeasible
from aggregator.allocate.limits import nearest
from aggregator.allocate.options import Common, Member, Option, options_of
from aggregator.allocate.program import Solution, solve
from protocol.messages import EnergySource

FLEET_ENERGY: Final = "J/day of the fleet"
FLEET_UPLINK: Final = "bytes of a round's updates"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a device does, why, and from what; `feasible` is False where nothing keeps its limits, or the fleet's."""

    option: Option
    reason: str
    inputs: Mapping[str, Any]
    feasible: bool


class Policy(Protocol):
    """A rule that gives every device a precision and a way to take part."""

    def choose(self, common: Common, members: Sequence[Member]) -> list[Decision]:
        """Choose for `members`, in their order."""
        ...


@dataclass(frozen=True)
class _Case:
    """A member with everything it could do, and what of that it may."""

    member: Member
    options: list[Option]
    allowed: list[Option]
    admitted: list[Option]
    """Of those allowed, the ones that hysteresis lets it change to."""

    @classmethod
    def of(cls, common: Common, member: Member) -> "_Case":
        options = options_of(common, member)
        allowed = [option for option in options if not member.limits.broken(option.needs)]
        last = hysteresis.standing(member)
        now = next((option for option in allowed if last is not None and hysteresis.same(option, last)), None)
        admitted = [option for option in allowed if hysteresis.has_room(option, now, member.limits)]
        return cls(member, options, allowed, admitted)

    @property
    def nearest(self) -> Option:
        """What exceeds the limits least."""
        return self.options[nearest(self.member.limits, [option.needs for option in self.options])]

    def better(self, option: Option) -> Option | None:
        """The cheapest option of the next better precision."""
        index = self.member.precisions.index(option.precision)
        above = [each for each in self.options if index and each.precision == self.member.precisions[index - 1]]
        return min(above, key=lambda each: each.j_per_day, default=None)


class BestThatFits:
    """For each device the best precision that keeps its limits, in its usual way; the fleet's are not looked at."""

    def choose(self, common: Common, members: Sequence[Member]) -> list[Decision]:
        """See `Policy.choose`."""
        cases = [_Case.of(common, member) for member in members]
        return [_decided(case, case.allowed[0] if case.allowed else None) for case in cases]


class Program:
    """The options that promise the fleet the most accuracy together (`program`)."""

    def choose(self, common: Common, members: Sequence[Member]) -> list[Decision]:
        """See `Policy.choose`."""
        cases = [_Case.of(common, member) for member in members]
        free = [case for case in cases if case.admitted]
        within = _limits(common, [case.nearest for case in cases if not case.admitted])
        found = _solved(free, within, common.least)
        picked = iter(found.picks)
        return [_decided(case, case.admitted[next(picked)] if case.admitted else None, found, common) for case in cases]


@dataclass(frozen=True)
class _Found:
    """A selection for the fleet; `fault` says which of its limits it does not keep, if any."""

    picks: tuple[int, ...]
    solution: Solution | None = None
    fault: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


def _limits(common: Common, fixed: Sequence[Option]) -> dict[str, float]:
    """What the fleet's limits leave beside options that are fixed."""
    stated = {FLEET_ENERGY: common.j_per_day, FLEET_UPLINK: common.uplink_bytes}
    taken = [uses(option) for option in fixed]
    return {
        name: max(0.0, limit - sum(each[name] for each in taken)) for name, limit in stated.items() if limit is not None
    }


def uses(option: Option) -> dict[str, float]:
    """What an option takes of the fleet's limits."""
    return {FLEET_ENERGY: option.j_per_day, FLEET_UPLINK: float(option.way.payload_bytes)}


def _solved(cases: Sequence[_Case], at_most: Mapping[str, float], at_least: Mapping[str, int]) -> _Found:
    if not cases:
        return _Found(())
    groups = [[_choice(case, option) for option in case.admitted] for case in cases]
    fault = ""
    for least in [at_least, {}] if at_least else [{}]:
        try:
            solution = solve(groups, at_most, least)
        except (Infeasible, TimeoutError) as error:
            fault = fault or str(error)
        else:
            shown = {"worth": solution.worth, "bound": solution.bound, "proven": solution.proven, "devices": len(cases)}
            return _Found(solution.picks, solution, fault, shown)
    return _least(cases, at_most)


def _least(cases: Sequence[_Case], at_most: Mapping[str, float]) -> _Found:
    """Where the fleet's limits admit nothing: the least energy everywhere, and how much that is."""
    options = [case.admitted for case in cases]
    picks = tuple(min(range(len(each)), key=lambda index: each[index].j_per_day) for each in options)
    needed = {name: sum(min(uses(option)[name] for option in each) for each in options) for name in at_most}
    faults = [
        f"the fleet's limit leaves {explain.figure(at_most[name])} {name}, its devices need at least"
        f" {explain.figure(need)}"
        for name, need in needed.items()
        if need > at_most[name]
    ]
    return _Found(picks, None, "; ".join(faults) or "the fleet's limits contradict each other")


def _choice(case: _Case, option: Option) -> Choice:
    worth = option.gain + hysteresis.bonus(option, hysteresis.standing(case.member))
    return Choice(round(worth / UNIT), uses(option), frozenset({str(option.precision)}))


def _decided(case: _Case, option: Option | None, found: _Found | None = None, common: Common | None = None) -> Decision:
    feasible = option is not None and not (found and found.fault)
    reason = explain.infeasible(case.member, case.options, case.nearest) if option is None else _reason(case, option)
    if option is not None and found and found.fault:
        reason = f"{found.fault}; {reason}"
    option = option or case.nearest
    inputs = _inputs(case, option, feasible=feasible) | ({"program": dict(found.inputs)} if found else {})
    if common is not None:
        inputs["fleet"] = {"j_per_day": common.j_per_day, "uplink_bytes": common.uplink_bytes}
    return Decision(option, "; ".join([reason, *case.member.doubts]), inputs, feasible)


def _reason(case: _Case, option: Option) -> str:
    better = case.better(option)
    if better is None or better not in case.allowed:
        return explain.chosen(case.member, option, better)
    if better not in case.admitted:
        kept = explain.lacks_room(case.member, better)
    elif (last := hysteresis.standing(case.member)) and better.gain - option.gain <= hysteresis.bonus(option, last):
        kept = explain.stays(option, better)
    else:
        kept = explain.granted_elsewhere(better)
    return explain.chosen(case.member, option, better, kept=kept)


def _inputs(case: _Case, option: Option, *, feasible: bool) -> dict[str, Any]:
    """Everything the decision was made from, for whoever asks later."""
    member = case.member
    same_way = [each for each in case.options if each.way == option.way]
    smallest = explain.smallest(member.limits, case.options)
    return {
        "feasible": feasible,
        "limits": member.limits.by_name,
        "smallest_j_per_day": smallest,
        "inferences_per_day": member.inferences_per_day,
        "recipe": option.way.recipe,
        "epochs": option.way.epochs,
        "uses": uses(option),
        "history_mj": dict(member.costs),
        "training_source": (EnergySource.MODELLED if member.training_mj is None else EnergySource.MEASURED).value,
        "doubts": list(member.doubts),
        "needs": [_need(member, each) for each in same_way],
        "ways": [_way(each) for each in case.options if each.precision == option.precision],
    }


def _need(member: Member, option: Option) -> dict[str, Any]:
    return {
        "precision": str(option.precision),
        "energy_mj": option.energy_mj,
        "source": option.source.value,
        "j_per_day": option.j_per_day,
        "latency_ms": option.latency_ms,
        "memory_bytes": option.memory_bytes,
        "accuracy": option.accuracy.accuracy,
        "accuracy_source": option.accuracy.source,
        "exceeds": list(member.limits.broken(option.needs)),
    }


def _way(option: Option) -> dict[str, Any]:
    return {
        "recipe": option.way.recipe,
        "epochs": option.way.epochs,
        "payload_bytes": option.way.payload_bytes,
        "uplink_j": option.uplink_j,
        "training_j": option.training_j,
        "learning": option.learning,
    }


POLICIES: Final[Mapping[str, type[Policy]]] = MappingProxyType({"program": Program, "each": BestThatFits})
"""By the name that a job calls them."""
