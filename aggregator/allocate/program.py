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
regret. A first, short search over choices of little regret finds a selection; a second one goes over every choice that
a better selection could hold, and over no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf
from time import monotonic
from typing import Any, Final

import numpy as np
from scipy.optimize import LinearConstraint, linprog
from scipy.sparse import csr_array

from aggregator.allocate.choices import Bool, Float64, Groups, Infeasible, Int64, Table
from aggregator.solver import milp

TIME_LIMIT_S: Final = 10.0
"""Devices wait for the round meanwhile. What has been found by then is used, with the distance from the bound."""
CORE: Final = 60
"""Choices tried first beside the best of each group: as a rule enough to fill the limits to the last thousandth."""
FEW_NODES: Final = 100
"""Of the first search, which has nothing to prove."""
ROUNDING: Final = 1e-6
"""Of bounds and regrets, which are sums of floats, against steps of one or more."""
_OPTIMAL, _INFEASIBLE = 0, 2


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
    if not table.limits_R.size:  # nothing is shared: each group takes its best, the first of equals
        return _without_limits(table, regret_C)
    first_G, _ = _best(table, regret_C <= _first_reach(regret_C), time_limit_s, nodes=FEW_NODES)
    least = None if first_G is None else table.worth_of(first_G) + table.step
    reach = bound - least + ROUNDING if least is not None else inf
    places_G, finished = first_G, True
    if reach >= 0:
        better_G, finished = _best(table, (regret_C <= reach) & table.admitted_C, give_up_at_s - monotonic(), least)
        places_G = first_G if better_G is None else better_G
    if places_G is None:
        raise _nothing(at_most, at_least, finished=finished)
    worth = table.worth_of(places_G)
    picks = tuple((places_G - table.starts_G).tolist())
    return Solution(picks, worth, worth if finished else max(worth, floor(bound + ROUNDING)))


def _without_limits(table: Table, regret_C: Float64) -> Solution:
    best_C = np.flatnonzero(regret_C == 0)
    places_G = best_C[np.unique(table.group_C[best_C], return_index=True)[1]]
    worth = table.worth_of(places_G)
    return Solution(tuple((places_G - table.starts_G).tolist()), worth, worth)


def whole(groups: Groups, at_most: Mapping[str, float], at_least: Mapping[str, int], time_limit_s: float) -> Solution:
    """The same, with every choice given to the solver at once: the plain form, to compare with.

    Raises:
        Infeasible, TimeoutError: as `solve`.
    """
    table = Table.of(groups, at_most, at_least)
    places_G, finished = _best(table, table.admitted_C, time_limit_s)
    if places_G is None:
        raise _nothing(at_most, at_least, finished=finished)
    worth = table.worth_of(places_G)
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


def _first_reach(regret_C: Float64) -> float:
    """The regret that `CORE` choices beside the best of their groups do not exceed."""
    real = np.sort(regret_C[(regret_C > 0) & (regret_C < inf)])
    return float(real[min(CORE, real.size) - 1]) if real.size else 0.0


def _best(
    table: Table, let_in_C: Bool, time_limit_s: float, least: int | None = None, nodes: int | None = None
) -> tuple[Int64 | None, bool]:
    """The places of the best of what is let in, if any is worth `least`; and whether the solver got to the end."""
    place_C = np.flatnonzero(let_in_C)
    group_C = table.group_C[place_C]
    if np.unique(group_C).size < len(table.starts_G):
        return None, True
    free_C = np.bincount(group_C)[group_C] > 1
    fixed_C, core_C = place_C[~free_C], place_C[free_C]
    left_R = table.limits_R - table.uses_RC[:, fixed_C].sum(axis=1)
    wanted = None if least is None else least - int(table.worth_C[fixed_C].sum())
    if not core_C.size:
        kept = (left_R >= 0).all() and (wanted is None or wanted <= 0)
        return (fixed_C if kept else None), True
    picked_C, finished = _milp(table, core_C, left_R, wanted, time_limit_s, nodes)
    return (None if picked_C is None else np.sort(np.concatenate([fixed_C, picked_C]))), finished


def _milp(
    table: Table, core_C: Int64, left_R: Int64, wanted: int | None, time_limit_s: float, nodes: int | None
) -> tuple[Int64 | None, bool]:
    """In steps of worth over the least of each group: small whole numbers, which the solver rounds its bounds to."""
    steps_C = table.steps_C[core_C]
    base = int(
        (table.worth_C[core_C] - table.step * steps_C)[np.unique(table.group_C[core_C], return_index=True)[1]].sum()
    )
    rows = [LinearConstraint(_one_of_each(table.group_C[core_C]), 1.0, 1.0)]
    if left_R.size:
        rows.append(LinearConstraint(csr_array(table.uses_RC[:, core_C]), ub=left_R))
    if wanted is not None:
        rows.append(LinearConstraint(csr_array(steps_C[np.newaxis, :]), lb=-(-(wanted - base) // table.step)))
    options: dict[str, Any] = {"mip_rel_gap": 0.0, "time_limit": max(0.01, time_limit_s)}
    found = milp(
        -steps_C.astype(np.float64),
        integrality=np.ones(core_C.size),
        bounds=(0, 1),
        constraints=rows,
        options=options | ({"node_limit": nodes} if nodes is not None else {}),
    )
    return (None if found.x is None else core_C[found.x > 0.5]), found.status in {_OPTIMAL, _INFEASIBLE}


def _one_of_each(group_C: Int64) -> Any:
    _, row_C = np.unique(group_C, return_inverse=True)
    return csr_array((np.ones(row_C.size), (row_C, np.arange(row_C.size))))


def _nothing(
    at_most: Mapping[str, float] | None, at_least: Mapping[str, int] | None, *, finished: bool
) -> Infeasible | TimeoutError:
    limits = f"at most {dict(at_most or {})}, at least {dict(at_least or {})}"
    return Infeasible(f"no selection keeps {limits}") if finished else TimeoutError(f"none within {limits} in time")
