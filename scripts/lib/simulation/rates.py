"""What a policy sees of a simulated federation, and what a round's bytes cost on the air (`protocol.channel`).

Devices lie at distances drawn by the run's seed. A round's updates go up one by one; what all its devices need goes
down once, at the rate of the farthest, and what one of them missed in earlier rounds to it alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from aggregator.rates import FIXED, policy
from aggregator.rates.base import Rates, Seen, Spreads, from_plain, to_plain
from aggregator.rates.fixed import Fixed
from aggregator.rates.prices import prices_of, side_bytes
from protocol.channel import FARTHEST_KM, NEAREST_KM, Channel
from protocol.precision import join
from simulation.downlink import Fetched
from simulation.partition import gather
from simulation.seeds import generator
from simulation.setup import Setup

CHANNEL: Final = Channel()


@dataclass(frozen=True)
class Past:
    """What all rounds so far decided, sent and spent.

    Attributes:
        rates: decided, without what follows from them.
        weights: spreads of the model before each.
        updates: spreads of its updates, means over devices.
        up_mj: on the air, all devices together.
        down_mj: on the air, the station.
    """

    rates: tuple[Rates, ...] = ()
    weights: tuple[Spreads, ...] = ()
    updates: tuple[Spreads, ...] = ()
    up_mj: tuple[float, ...] = ()
    down_mj: tuple[float, ...] = ()

    def then(self, rates: Rates, weights: Spreads, updates: Spreads, up_mj: float, down_mj: float) -> Self:
        """One round later."""
        return type(self)(
            (*self.rates, rates),
            (*self.weights, weights),
            (*self.updates, updates),
            (*self.up_mj, up_mj),
            (*self.down_mj, down_mj),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "rates": [asdict(rates) for rates in self.rates],
            "weights": [to_plain(spreads) for spreads in self.weights],
            "updates": [to_plain(spreads) for spreads in self.updates],
            "up_mj": self.up_mj,
            "down_mj": self.down_mj,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            tuple(Rates(**{**rates, "up": tuple(rates["up"])}) for rates in document["rates"]),
            tuple(from_plain(rows) for rows in document["weights"]),
            tuple(from_plain(rows) for rows in document["updates"]),
            tuple(document["up_mj"]),
            tuple(document["down_mj"]),
        )


def decide(setup: Setup, past: Past, loss: Sequence[float], weights: Spreads, devices: Sequence[int]) -> Rates:
    """How the next round is coded.

    Raises:
        BudgetError: nothing fits.
    """
    if setup.rates == FIXED:  # sees nothing; the deal, which stays in the workers, least of all
        return Fixed(setup.recipe, setup.downlink).every(len(devices))
    fleet_km = distances_km(setup)
    parts = gather(setup).parts
    pictures = [len(parts[device]) for device in devices]
    seen = Seen(
        number=len(loss) + 1,
        rounds=setup.rounds,
        shares=[count / sum(pictures) for count in pictures],
        loss=loss,
        weights=(*past.weights, weights),
        updates=past.updates,
        spent_j=(sum(past.up_mj) + sum(past.down_mj)) / 1e3,
        last_j=(past.up_mj[-1] / 1e3, past.down_mj[-1] / 1e3) if past.rates else (0.0, 0.0),
        last=past.rates[-1] if past.rates else None,
        fleet=setup.devices,
        prices=prices_of(CHANNEL, [fleet_km[device] for device in devices], fleet_km),
        side_bytes=side_bytes(setup.network, join(setup.precisions), 0),
    )
    return policy(setup.rates, setup.recipe, setup.downlink).rates(seen)


def distances_km(setup: Setup) -> list[float]:
    """Of every device."""
    drawn = generator(setup.seed, 0, "distances").uniform(NEAREST_KM, FARTHEST_KM, setup.devices)
    return [float(distance) for distance in drawn]


def spent_mj(setup: Setup, sent_bytes: Mapping[int, int], fetched: Fetched) -> tuple[float, float]:
    """Energy of one round up and down.

    Args:
        setup: of the run.
        sent_bytes: of each device's update.
        fetched: what the devices took.
    """
    fleet_km = distances_km(setup)
    up = sum(CHANNEL.up_mj(count, fleet_km[device]) for device, count in sent_bytes.items())
    down = CHANNEL.down_mj(fetched.common_bytes, [fleet_km[device] for device in sent_bytes])
    alone = (
        CHANNEL.down_mj(count - fetched.common_bytes, [fleet_km[device]])
        for device, count in fetched.by_device.items()
        if count > fetched.common_bytes
    )
    return up, down + sum(alone)
