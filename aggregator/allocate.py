"""Which precision a device runs: rules to compare, each one small class with one method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from protocol.architecture import Architecture
from protocol.energy import MJ_PER_J, inference_energy
from protocol.messages import Cost, EnergySource
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Decision:
    """A precision, why, and from what; `feasible` is False where nothing fits the budget."""

    precision: Precision
    reason: str
    inputs: Mapping[str, Any]
    feasible: bool


class Policy(Protocol):
    """A rule that gives one device its precision."""

    def choose(
        self,
        network: Architecture,
        precisions: Sequence[Precision],
        budget_j_per_day: float,
        inferences_per_day: int,
        costs: Sequence[Cost],
    ) -> Decision:
        """Choose from `precisions`, which stand best first and are not empty. A budget of 0 means none stated."""
        ...


@dataclass(frozen=True, slots=True)
class _Need:
    """What one precision costs a day."""

    precision: Precision
    energy_mj: float
    source: EnergySource
    j_per_day: float


class BestThatFits:
    """The best precision whose inferences of a day fit the budget; the cheapest one where none does.

    Energy per inference is what the device measured, else what `protocol.energy` models. Training and radio are not
    counted: they do not depend on the precision the device runs.
    """

    def choose(
        self,
        network: Architecture,
        precisions: Sequence[Precision],
        budget_j_per_day: float,
        inferences_per_day: int,
        costs: Sequence[Cost],
    ) -> Decision:
        """See `Policy.choose`."""
        measured = {cost.precision: cost.energy_mj for cost in costs if cost.source is EnergySource.MEASURED}
        needs = [_need(network, precision, inferences_per_day, measured) for precision in precisions]
        inputs = _inputs(needs, budget_j_per_day, inferences_per_day)
        if not budget_j_per_day:
            reason = f"{needs[0].precision} is the best it can run; no energy budget is stated (mains power)"
            return Decision(needs[0].precision, reason, inputs, feasible=True)
        for index, need in enumerate(needs):
            if need.j_per_day <= budget_j_per_day:
                reason = _fits(need, needs[:index], inferences_per_day, budget_j_per_day)
                return Decision(need.precision, reason, inputs, feasible=True)
        least = min(needs, key=lambda need: need.j_per_day)
        return Decision(least.precision, _misfits(least, inferences_per_day, budget_j_per_day), inputs, feasible=False)


def _need(network: Architecture, precision: Precision, inferences_per_day: int, measured: Mapping[str, float]) -> _Need:
    name = str(precision)
    if name in measured:
        energy_mj, source = measured[name], EnergySource.MEASURED
    else:
        energy_mj, source = inference_energy(network, precision).total_mj, EnergySource.MODELLED
    return _Need(precision, energy_mj, source, energy_mj * inferences_per_day / MJ_PER_J)


def _fits(need: _Need, better: Sequence[_Need], inferences_per_day: int, budget_j: float) -> str:
    reason = f"{need.precision} fits: {_sum(need, inferences_per_day)} within {_figure(budget_j)} J/day"
    if better:
        reason += f"; {better[-1].precision} needs {_figure(better[-1].j_per_day)}"
        if better[-1].source is not need.source:
            reason += f" ({better[-1].source})"
    return reason


def _misfits(need: _Need, inferences_per_day: int, budget_j: float) -> str:
    return (
        f"nothing fits {_figure(budget_j)} J/day; {need.precision} comes nearest: {_sum(need, inferences_per_day)},"
        f" so the smallest budget that works is {_figure(need.j_per_day)} J/day"
    )


def _sum(need: _Need, inferences_per_day: int) -> str:
    energy, total = _figure(need.energy_mj), _figure(need.j_per_day)
    return f"{inferences_per_day:,} inferences × {energy} mJ ({need.source}) = {total} J/day"


def _figure(value: float) -> str:
    """Three significant digits, in full above a thousand."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _inputs(needs: Sequence[_Need], budget_j: float, inferences_per_day: int) -> dict[str, Any]:
    return {
        "budget_j_per_day": budget_j,
        "inferences_per_day": inferences_per_day,
        "needs": [
            {
                "precision": str(need.precision),
                "energy_mj": need.energy_mj,
                "source": need.source.value,
                "j_per_day": need.j_per_day,
            }
            for need in needs
        ],
    }
