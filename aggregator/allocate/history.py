"""A device's measurements against its own earlier ones: ten times more or less is flagged, not believed.

No precision's energy changes tenfold on one board; a sensor that was moved, a meter that counts in another unit or a
device that lies does. The earlier figure stands until the device joins anew, which starts its history over.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.messages import Cost, EnergySource

DISAGREES: Final = 10.0


@dataclass(frozen=True)
class Believed:
    """Energy of an inference in mJ by precision, and what is not believed, in words."""

    energy_mj: Mapping[str, float]
    doubts: tuple[str, ...]


def believe(costs: Iterable[Cost], history: Mapping[str, float]) -> Believed:
    """What to take for true.

    Args:
        costs: as the device states them now; what it only modelled, or measured as nothing, is left out.
        history: what was believed before, by precision.
    """
    believed, doubts = dict(history), []
    for cost in costs:
        if cost.source is not EnergySource.MEASURED or cost.energy_mj <= 0:
            continue
        before_mj = history.get(cost.precision)
        if before_mj is None or 1 / DISAGREES < cost.energy_mj / before_mj < DISAGREES:
            believed[cost.precision] = cost.energy_mj
        else:
            doubts.append(_doubt(cost, before_mj))
    return Believed(believed, tuple(doubts))


def _doubt(cost: Cost, before_mj: float) -> str:
    more = cost.energy_mj > before_mj
    factor = cost.energy_mj / before_mj if more else before_mj / cost.energy_mj
    return (
        f"{cost.precision} at {cost.energy_mj:.3g} mJ is {factor:.3g} times {'more' if more else 'less'} than the"
        f" {before_mj:.3g} mJ it measured before: not believed"
    )
