"""Devices that come and go: alternating exponential spells of presence and absence, drawn from a seed.

In the long run a fraction `share` is away: a spell of presence lasts (1 − share) / share times a spell of absence in
the mean. Half of the absences cut the connection, half leave it open and say nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from virtual.member import Member

NEVER: Final = float("inf")


@dataclass
class Churn:
    """Moves the members of a crowd in and out.

    Args:
        share: of the devices that are away at any time.
        absence_s: mean length of an absence.
        seed: of everything.
    """

    share: float
    absence_s: float
    seed: int
    running: bool = False
    departures: int = 0
    _rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def begin(self, members: Sequence[Member], now_s: float) -> None:
        """From now on members leave; the first absences begin at once, so that the share is right from the start."""
        if not self.share:
            return
        self.running = True
        for member in members:
            member.leaves_at_s = now_s + (0.0 if self._rng.random() < self.share else self._presence_s())

    def end(self, members: Sequence[Member], now_s: float) -> None:
        """Everybody comes back, and stays."""
        self.running = False
        for member in members:
            member.leaves_at_s = NEVER
            member.returns_at_s = min(member.returns_at_s, now_s + self._rng.uniform(0, 2))

    def move(self, members: Sequence[Member], now_s: float) -> list[Member]:
        """Let go who leaves; returns who comes back now, to be connected."""
        back = []
        for member in members:
            if member.present and now_s >= member.leaves_at_s:
                silent = self._rng.random() < 0.5
                member.vanish(silent=silent)
                member.agent.ledger.moved(member.agent.name, "silent" if silent else "cut")
                self.departures += 1
                member.leaves_at_s, member.returns_at_s = NEVER, now_s + self._rng.expovariate(1 / self.absence_s)
                if not self.running:
                    member.returns_at_s = now_s
            elif now_s >= member.returns_at_s:
                member.returns_at_s, member.silent = NEVER, False
                member.leaves_at_s = now_s + self._presence_s() if self.running else NEVER
                member.agent.ledger.moved(member.agent.name, "back")
                back.append(member)
        return back

    def _presence_s(self) -> float:
        return self._rng.expovariate(self.share / (1 - self.share) / self.absence_s)
