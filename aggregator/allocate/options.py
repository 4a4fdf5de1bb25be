"""What a device could do, what that would cost it a day and what the fleet would gain.

Energy of an inference is what the device measured and is believed, else what `protocol.energy` models; latency is what
it measured, or not known. An update's energy is counted where the job says how many rounds a day has.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Final

from aggregator.allocate.accuracy import Expected
from aggregator.allocate.limits import ENERGY, LATENCY, MEMORY, Limits
from aggregator.allocate.ways import Way, learning
from protocol.architecture import Architecture
from protocol.energy import MJ_PER_J, inference_energy, model_bytes, training_energy_mj
from protocol.messages import Cost, EnergySource
from protocol.precision import Precision

Uplink = Callable[[int], float]
"""Payload bytes → millijoules of the device's radio."""
UNPACKED_BYTES: Final = 1
"""Of a weight in the runtime's memory, where packed ones are unpacked to int8 when the model loads."""
FLOAT_BYTES: Final = 4


def uncounted(payload_bytes: int) -> float:  # noqa: ARG001 (an `Uplink`)
    """Where nobody has said what the radio costs."""
    return 0.0


@dataclass(frozen=True)
class Previous:
    """What a device was told before, and what it was decided from: its limits and its inferences a day."""

    precision: str
    recipe: str
    epochs: int
    limits: Limits
    inferences_per_day: int


@dataclass(frozen=True)
class Member:
    """What is known of one device.

    Attributes:
        name: of the device.
        precisions: that it can run and may, best first; at least one.
        inferences_per_day: that its budget is for.
        limits: its own.
        costs: measured and believed, by precision.
        latency_ms: measured, by precision.
        samples: its pictures, 0 where it does not train.
        training_mj: what it measured training on one picture once to take, None for what is modelled.
        ways: how it may take part, the usual first; at least one.
        previous: the last decision.
        doubts: measurements that are not believed, in words.
    """

    name: str
    precisions: tuple[Precision, ...]
    inferences_per_day: int
    limits: Limits = field(default_factory=Limits)
    costs: Mapping[str, float] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    training_mj: float | None = None
    ways: tuple[Way, ...] = (Way("", 0),)
    previous: Previous | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Common:
    """What holds for all devices.

    Attributes:
        network: that they run.
        accuracy: expected, by precision.
        rounds_per_day: 0 leaves training and uplink out of the budgets.
        mean_samples: of the members that train.
        uplink_mj: what sending so many bytes costs a device.
        j_per_day: limit on the energy of all devices together, None for none.
        uplink_bytes: limit on the updates of one round, None for none.
        least: by precision, how many devices must run it.
    """

    network: Architecture
    accuracy: Mapping[str, Expected]
    rounds_per_day: float = 0.0
    mean_samples: float = 0.0
    uplink_mj: Uplink = uncounted
    j_per_day: float | None = None
    uplink_bytes: float | None = None
    least: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def modelled_mj(self) -> dict[str, float]:
        """Energy of an inference by precision, for whoever has measured none."""
        return {name: inference_energy(self.network, Precision.parse(name)).total_mj for name in self.accuracy}

    @cached_property
    def memory_bytes(self) -> dict[str, int]:
        """What the runtime holds, by precision."""
        return {name: memory_bytes(self.network, Precision.parse(name)) for name in self.accuracy}

    @cached_property
    def training_mj(self) -> float:
        """Energy of training on one picture once, modelled."""
        return training_energy_mj(self.network, 1)


@dataclass(frozen=True, slots=True)
class Option:
    """One thing a device could do. Energy in J/day, of inferences, updates on their way and training."""

    precision: Precision
    way: Way
    energy_mj: float
    source: EnergySource
    inference_j: float
    uplink_j: float
    training_j: float
    latency_ms: float | None
    memory_bytes: int
    accuracy: Expected
    learning: float

    @property
    def j_per_day(self) -> float:
        """All it takes."""
        return self.inference_j + self.uplink_j + self.training_j

    @property
    def gain(self) -> float:
        """Expected accuracy of the device, and what the fleet owes it."""
        return self.accuracy.accuracy + self.learning

    @property
    def needs(self) -> dict[str, float | None]:
        """What is limited."""
        return {ENERGY: self.j_per_day, LATENCY: self.latency_ms, MEMORY: self.memory_bytes}


def options_of(common: Common, member: Member) -> list[Option]:
    """Everything a member could do: precisions best first, each in every way."""
    return [_option(common, member, precision, way) for precision in member.precisions for way in member.ways]


def _option(common: Common, member: Member, precision: Precision, way: Way) -> Option:
    name = str(precision)
    measured_mj = member.costs.get(name)
    energy_mj = common.modelled_mj[name] if measured_mj is None else measured_mj
    rounds = common.rounds_per_day if member.samples else 0.0
    once_mj = common.training_mj if member.training_mj is None else member.training_mj
    training_mj = once_mj * member.samples * way.epochs
    return Option(
        precision=precision,
        way=way,
        energy_mj=energy_mj,
        source=EnergySource.MODELLED if measured_mj is None else EnergySource.MEASURED,
        inference_j=energy_mj * member.inferences_per_day / MJ_PER_J,
        uplink_j=rounds * common.uplink_mj(way.payload_bytes) / MJ_PER_J if rounds else 0.0,
        training_j=rounds * training_mj / MJ_PER_J,
        latency_ms=member.latency_ms.get(name),
        memory_bytes=common.memory_bytes[name],
        accuracy=common.accuracy[name],
        learning=learning(way, member.samples, common.mean_samples),
    )


def memory_bytes(network: Architecture, precision: Precision) -> int:
    """The runtime's memory: the file, its weights as they are computed with, and the two largest activations."""
    integer = precision.activation_bits <= 8
    weights = sum(prod(layer.weight_shape) for layer in network.layers if layer.weight_shape is not None)
    largest = sorted(prod(layer.out_shape) for layer in network.layers)[-2:]
    size = UNPACKED_BYTES if integer else FLOAT_BYTES
    return model_bytes(network, precision) + size * (weights + sum(largest))


def latencies(costs: Iterable[Cost]) -> dict[str, float]:
    """Latency in ms by precision: measured wherever a device states a cost, however its energy was obtained."""
    return {cost.precision: cost.latency_ms for cost in costs if cost.latency_ms > 0}
