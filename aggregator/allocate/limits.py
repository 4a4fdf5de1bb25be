"""What a device must not exceed, what an option exceeds, and which limits contradict each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Self

ENERGY: Final = "budget"
LATENCY: Final = "latency"
MEMORY: Final = "memory"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one device; None where there is none.

    Attributes:
        j_per_day: energy. Zero is a limit as any other: nothing that takes energy keeps it.
        latency_ms: of one inference.
        memory_bytes: of the model and its activations.
    """

    j_per_day: float | None = None
    latency_ms: float | None = None
    memory_bytes: float | None = None

    @property
    def by_name(self) -> dict[str, float]:
        """Those there are."""
        named = {ENERGY: self.j_per_day, LATENCY: self.latency_ms, MEMORY: self.memory_bytes}
        return {name: limit for name, limit in named.items() if limit is not None}

    @classmethod
    def from_names(cls, named: Mapping[str, float]) -> Self:
        """What `by_name` says."""
        return cls(named.get(ENERGY), named.get(LATENCY), named.get(MEMORY))

    def broken(self, needs: Mapping[str, float | None]) -> tuple[str, ...]:
        """The limits that these needs exceed; what is not known exceeds nothing."""
        return tuple(name for name, limit in self.by_name.items() if (needs.get(name) or 0.0) > limit)


def contradiction(limits: Limits, needs: Sequence[Mapping[str, float | None]]) -> tuple[str, ...]:
    """The fewest limits that no option keeps together; empty where some option keeps all."""
    broken = [frozenset(limits.broken(each)) for each in needs]
    names = list(limits.by_name)
    for count in range(1, len(names) + 1):
        for together in combinations(names, count):
            if all(each & set(together) for each in broken):
                return together
    return ()


def nearest(limits: Limits, needs: Sequence[Mapping[str, float | None]]) -> int:
    """The option that exceeds its limits by the least factor, the first of equals."""
    return min(range(len(needs)), key=lambda index: _excess(limits, needs[index]))


def _excess(limits: Limits, needs: Mapping[str, float | None]) -> tuple[int, float, float]:
    """How many limits are exceeded, by what factor, and the energy: no factor tells those of a budget of zero apart."""
    broken = limits.broken(needs)
    named = limits.by_name
    worst = max(((needs[name] or 0.0) / named[name] if named[name] else 1.0 for name in broken), default=1.0)
    return len(broken), worst, needs.get(ENERGY) or 0.0
