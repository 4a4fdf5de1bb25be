"""What the aggregator makes of a round's average Δ: a step of the global weights x.

    fedavg        x' = x + Δ
    fedavgm:β     v' = β·v + Δ                                          x' = x + v'
    fedadam:η     m' = β₁·m + (1−β₁)·Δ    v' = β₂·v + (1−β₂)·Δ²         x' = x + η·m'/(√v' + τ)

T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, arXiv 1909.06335, for FedAvgM; S. J. Reddi, Z. Charles, M. Zaheer, Z. Garrett, K. Rush,
J. Konečný, S. Kumar, H. B. McMahan, "Adaptive Federated Optimization", ICLR 2021, arXiv 2003.00295, for FedAdam, with
their β₁ = 0.9, β₂ = 0.99 and τ = 10⁻³, and like them without correction of the first steps. Both start from v = m = 0.

Weights, gains, offsets and biases take such steps. Moments and activation steps, which belong to one precision, are
what was pooled: they are measurements, not a point on a way.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, Protocol

import numpy as np

from aggregator.merge.partial_sum import parted
from aggregator.model import GlobalModel, shared_specs
from protocol.precision import Float32

FEDAVG: Final = "fedavg"
BETA_1: Final = 0.9
BETA_2: Final = 0.99
TAU: Final = 1e-3


class Optimizer(Protocol):
    """One way to step.

    Attributes:
        slots: how many values it remembers for each weight.
    """

    slots: ClassVar[int]

    def step(self, delta_N: Float32, memory_SN: Float32) -> tuple[Float32, Float32]:
        """How far each weight goes, float32[N], and what to remember, float32[slots, N]."""
        ...


@dataclass(frozen=True)
class FedAvg:
    """The average itself."""

    slots: ClassVar[int] = 0

    def step(self, delta_N: Float32, memory_SN: Float32) -> tuple[Float32, Float32]:
        """See the head of the file."""
        return delta_N, memory_SN


@dataclass(frozen=True)
class FedAvgM:
    """Momentum: what was right for several rounds goes further."""

    beta: float
    slots: ClassVar[int] = 1

    def step(self, delta_N: Float32, memory_SN: Float32) -> tuple[Float32, Float32]:
        """See the head of the file."""
        moved_N = np.float32(self.beta) * memory_SN[0] + delta_N
        return moved_N, moved_N[None]


@dataclass(frozen=True)
class FedAdam:
    """Every weight at a rate of its own."""

    rate: float
    slots: ClassVar[int] = 2

    def step(self, delta_N: Float32, memory_SN: Float32) -> tuple[Float32, Float32]:
        """See the head of the file."""
        mean_N = np.float32(BETA_1) * memory_SN[0] + np.float32(1 - BETA_1) * delta_N
        square_N = np.float32(BETA_2) * memory_SN[1] + np.float32(1 - BETA_2) * np.square(delta_N)
        moved_N = np.float32(self.rate) * mean_N / (np.sqrt(square_N) + np.float32(TAU))
        return moved_N, np.stack([mean_N, square_N])


def parse(text: str) -> Optimizer:
    """The optimizer that a job names: `fedavg`, `fedavgm:0.9`, `fedadam:0.01`.

    Raises:
        ValueError: there is no such one.
    """
    name, _, given = text.partition(":")
    try:
        value = float(given) if given else None
    except ValueError:
        value = float("nan")
    if name == FEDAVG and value is None and text == FEDAVG:
        return FedAvg()
    if name == "fedavgm" and value is not None and 0 <= value < 1:
        return FedAvgM(value)
    if name == "fedadam" and value is not None and 0 < value <= 1:
        return FedAdam(value)
    raise ValueError("fedavg, fedavgm:BETA with beta from 0 to below 1, or fedadam:RATE above 0, at most 1")


def stepped(base: GlobalModel, merged: GlobalModel, optimizer: Optimizer, memory: bytes) -> tuple[GlobalModel, bytes]:
    """The model after a step from `base` in the direction of `merged`.

    Args:
        base: what the round began with.
        merged: its average, added to `base`.
        optimizer: how to step.
        memory: what the last step left to remember, empty for nothing.

    Returns:
        The model, and what to remember: float32, little-endian, in the order of `shared_specs`.
    """
    if not optimizer.slots:
        return merged, b""
    base_N = _flat(base)
    held_SN = np.frombuffer(memory, dtype="<f4").reshape(optimizer.slots, -1) if memory else None
    if held_SN is None or held_SN.shape[1] != base_N.size:
        held_SN = np.zeros((optimizer.slots, base_N.size), dtype=np.float32)
    moved_N, kept_SN = optimizer.step(_flat(merged) - base_N, held_SN)
    shared = parted(shared_specs(base.network), base_N + moved_N)
    return replace(merged, shared=shared), kept_SN.astype("<f4").tobytes()


def _flat(model: GlobalModel) -> Float32:
    return np.concatenate([model.shared[spec.name].reshape(-1) for spec in shared_specs(model.network)])
