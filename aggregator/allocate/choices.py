"""What there is to choose: groups of choices, and the same as arrays of whole numbers.

Shapes: G groups, C choices of all groups one after the other, R limits.

Uses are parts of their limit, rounded up, so that sums are exact and no tolerance of a solver can bend a limit; a
thousand groups lose at most a thousandth of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, inf
from typing import Final

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

PARTS: Final = 1_000_000
"""Of a limit: a millionth of a day's energy is below what any meter tells."""


class Infeasible(Exception):
    """No selection keeps all limits; the message names them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a group may take.

    Attributes:
        worth: in whole units of the caller's.
        uses: how much of what is limited, by the limit's name and in its unit.
        tags: what it counts for.
    """

    worth: int
    uses: Mapping[str, float] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()


Groups = Sequence[Sequence[Choice]]


@dataclass(frozen=True)
class Table:
    """A·x ≤ b over choices x in {0, 1}, one of each group.

    Attributes:
        starts_G: where each group begins.
        worth_C: of each choice.
        uses_RC: A; a tag that so many must have is a limit from above on its negative.
        limits_R: b.
        admitted_C: False where a choice alone is over a limit.
    """

    starts_G: Int64
    worth_C: Int64
    uses_RC: Int64
    limits_R: Int64
    admitted_C: Bool

    @classmethod
    def of(cls, groups: Groups, at_most: Mapping[str, float], at_least: Mapping[str, int]) -> "Table":
        """The arrays of `groups`, which are not empty and none of which is."""
        choices = [choice for group in groups for choice in group]
        limits = {name: limit for name, limit in at_most.items() if limit < inf}
        rows = [[parts(choice.uses.get(name, 0.0), limit) for choice in choices] for name, limit in limits.items()]
        rows += [[-(tag in choice.tags) for choice in choices] for tag in at_least]
        uses_RC = np.array(rows, dtype=np.int64).reshape(len(rows), len(choices))
        return cls(
            starts_G=np.cumsum([0, *map(len, groups[:-1])]),
            worth_C=np.array([choice.worth for choice in choices], dtype=np.int64),
            uses_RC=uses_RC,
            limits_R=np.array([PARTS] * len(limits) + [-count for count in at_least.values()], dtype=np.int64),
            admitted_C=np.all(uses_RC <= PARTS, axis=0),
        )

    @cached_property
    def group_C(self) -> Int64:
        """The group of each choice."""
        return np.repeat(np.arange(len(self.starts_G)), np.diff(self.starts_G, append=len(self.worth_C)))

    @cached_property
    def step(self) -> int:
        """What selections differ by in worth: a whole multiple of this."""
        return int(np.gcd.reduce(self._over_least_C)) or 1

    @cached_property
    def steps_C(self) -> Int64:
        """How many steps each choice is worth over the least of its group."""
        return self._over_least_C // self.step

    @cached_property
    def _over_least_C(self) -> Int64:
        return self.worth_C - np.minimum.reduceat(self.worth_C, self.starts_G)[self.group_C]

    def worth_of(self, places_G: Int64) -> int:
        """What the choices at these places are worth together."""
        return int(self.worth_C[places_G].sum())

    def keeps(self, places_G: Int64) -> bool:
        """Whether the choices at these places, one of each group, keep every limit."""
        return bool((self.uses_RC[:, places_G].sum(axis=1) <= self.limits_R).all())

    def regret(self, prices_R: Float64) -> tuple[Float64, float]:
        """What each choice is worth less than the best of its group, at prices ≥ 0, and the bound of all.

        Weak duality: for any x that keeps the limits, worth·x ≤ Σ_g max_c (worth − price·use) + price·b − regret·x.

        Returns:
            regret_C, infinite for what is not admitted; what no selection without regret is worth more than.
        """
        score_C = np.where(self.admitted_C, self.worth_C - prices_R @ self.uses_RC, -inf)
        best_G = np.maximum.reduceat(score_C, self.starts_G)
        return best_G[self.group_C] - score_C, float(best_G.sum() + prices_R @ self.limits_R)


def parts(use: float, limit: float) -> int:
    """A use in millionths of its limit, rounded up; one more than all of it where it is more."""
    if use <= 0:
        return 0
    return PARTS + 1 if use > limit else min(PARTS, ceil(use / limit * PARTS))
