"""One choice from each group, worth the most together, within limits that all share: a mixed-integer program.

With x_gc = 1 where group g takes its choice c,

    maximize    Σ worth_gc · x_gc
    subject to  Σ_c x_gc = 1             for every group g
                Σ use_gc · x_gc ≤ limit  for everything that is limited

the multiple-choice knapsack of P. Sinha, A. Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research
27(3), 1979, with several knapsacks. Groups are devices in `rules`, layers in `mixed`.

HiGHS solves it (Q. Huangfu, J. Hall, "Parallelizing the dual revised simplex method", Mathematical Programming
Computation 10, 2018). Given whole (`whole`) it takes from a second to minutes to prove that a selection is the best, so
it is given a core, as in D. Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 83(2), 1995.
The linear relaxation says what a limit's last part is worth, its price; a choice's regret is what it is worth less, at
these prices, than the best of its group; and a selection with a regret in it is worth at most the bound less that
regret. The program is solved over choices of little regret, and over more of them until the rest cannot matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor, inf
from time import monotonic
from typing import Any, Final

import numpy as np
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from aggregator.allocate.choices import Bool, Float64, Groups, Infeasible, Int64, Table

TIME_LIMIT_S: Final = 10.0
"""Devices wait for the round meanwhile. What has been found by then is used, with the distance from the bound."""
CORE: Final = 60
"""Choices tried first beside the best of each group; as a rule these settle it, or leave a gap of a few units."""
WIDER: Final = 3
"""How many times as many are tried next."""


@dataclass(frozen=True, slots=True)
class Solution:
    """A selection within all limits.

    Attributes:
        picks: the index of each group's choice.
        worth: of all of them.
        bound: no selection is worth more.
    """

    picks: tuple[int, ...]
    worth: int
    bound: int

    @property
    def proven(self) -> bool:
        """Whether none is better."""
        return self.worth >= self.bound


def solve(
    groups: Groups,
    at_most: Mapping[str, float] | None = None,
    at_least: Mapping[str, int] | None = None,
    *,
    time_limit_s: float = TIME_LIMIT_S,
) -> Solution:
    """The best selection.

    Args:
        groups: at least one, each with at least one choice.
        at_most: by name, what all may use together; infinite for no limit.
        at_least: by tag, how many must have it.
        time_limit_s: after which the best found so far is returned, not proven.

    Raises:
        Infeasible: there is none.
        TimeoutError: none was found in time.
    """
    table = Table.of(groups, at_most or {}, at_least or {})
    give_up_at_s = monotonic() + time_limit_s
    prices_R = _prices(table)
    if prices_R is None:
        raise _nothing(at_most, at_least, finished=True)
    regret_C, bound = table.regret(prices_R)
    best_G: Int64 | None = None
    for reach, last in _reaches(regret_C):
        gap = bound - _worth(table, best_G)
        places_G, finished = _best(table, regret_C <= min(reach, gap), give_up_at_s - monotonic())
        if _worth(table, places_G) > _worth(table, best_G):
            best_G = places_G
        proven = finished and (last or min(reach, gap) >= bound - _worth(table, best_G))
        if proven or not finished:
            break
    if best_G is None:
        raise _nothing(at_most, at_least, finished=finished)
    worth = int(_worth(table, best_G))
    return Solution(tuple((best_G - table.starts_G).tolist()), worth, worth if proven else floor(bound + 1e-6))


def whole(groups: Groups, at_most: Mapping[str, float], at_least: Mapping[str, int], time_limit_s: float) -> Solution:
    """The same, with every choice given to the solver at once: the plain form, to compare with.

    Raises:
        Infeasible, TimeoutError: as `solve`.
    """
    table = Table.of(groups, at_most, at_least)
    places_G, finished = _best(table, table.admitted_C, time_limit_s)
    if places_G is None:
        raise _nothing(at_most, at_least, finished=finished)
    worth = int(_worth(table, places_G))
    bound = table.regret(np.zeros(len(table.limits_R)))[1]
    return Solution(tuple((places_G - table.starts_G).tolist()), worth, worth if finished else int(bound))


def _prices(table: Table) -> Float64 | None:
    """What a part of each limit is worth: the dual values of the linear relaxation; None where it is infeasible."""
    if not table.limits_R.size:
        return np.zeros(0)
    found = linprog(
        -table.worth_C.astype(np.float64),
        A_ub=table.uses_RC,
        b_ub=table.limits_R,
        A_eq=_one_of_each(table.group_C),
        b_eq=np.ones(len(table.starts_G)),
        bounds=np.stack([np.zeros(len(table.worth_C)), table.admitted_C], axis=1),
        method="highs",
    )
    return None if found.ineqlin.marginals is None else np.maximum(0.0, -found.ineqlin.marginals)


def _reaches(regret_C: Float64) -> Iterator[tuple[float, bool]]:
    """Regrets that let in `CORE` choices beside the best of their groups, then more, and whether these are all."""
    real = np.sort(regret_C[(regret_C > 0) & (regret_C < inf)])
    count = CORE
    while count < real.size:
        yield float(real[count - 1]), False
        count *= WIDER
    yield (float(real[-1]) if real.size else 0.0), True


def _worth(table: Table, places_G: Int64 | None) -> float:
    return -inf if places_G is None else float(table.worth_C[places_G].sum())


def _best(table: Table, let_in_C: Bool, time_limit_s: float) -> tuple[Int64 | None, bool]:
    """The places of the best selection of what is let in, if there is one, and whether the solver got to the end."""
    place_C = np.flatnonzero(let_in_C)
    group_C = table.group_C[place_C]
    if np.unique(group_C).size < len(table.starts_G):
        return None, True
    free_C = np.bincount(group_C)[group_C] > 1
    fixed_C, core_C = place_C[~free_C], place_C[free_C]
    left_R = table.limits_R - table.uses_RC[:, fixed_C].sum(axis=1)
    if not core_C.size:
        return (fixed_C, True) if (left_R >= 0).all() else (None, True)
    picked_C, finished = _milp(table, core_C, left_R, time_limit_s)
    return (None if picked_C is None else np.sort(np.concatenate([fixed_C, picked_C]))), finished


def _milp(table: Table, core_C: Int64, left_R: Int64, time_limit_s: float) -> tuple[Int64 | None, bool]:
    one_of_each = LinearConstraint(_one_of_each(table.group_C[core_C]), 1.0, 1.0)
    within = [LinearConstraint(csr_array(table.uses_RC[:, core_C]), ub=left_R)] if left_R.size else []
    worth_C = table.worth_C[core_C]
    found = milp(
        (worth_C.max() - worth_C).astype(np.float64),
        integrality=np.ones(core_C.size),
        bounds=(0, 1),
        constraints=[one_of_each, *within],
        options={"mip_rel_gap": 0.0, "time_limit": max(0.01, time_limit_s)},
    )
    picked_C = None if found.x is None else core_C[found.x > 0.5]
    return picked_C, found.status in {0, 2}


def _one_of_each(group_C: Int64) -> Any:
    _, row_C = np.unique(group_C, return_inverse=True)
    return csr_array((np.ones(row_C.size), (row_C, np.arange(row_C.size))))


def _nothing(
    at_most: Mapping[str, float] | None, at_least: Mapping[str, int] | None, *, finished: bool
) -> Infeasible | TimeoutError:
    limits = f"at most {dict(at_most or {})}, at least {dict(at_least or {})}"
    return Infeasible(f"no selection keeps {limits}") if finished else TimeoutError(f"none within {limits} in time")
