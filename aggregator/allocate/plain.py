"""The program in three lines: every selection, and the best of those that keep the limits. For small ones alone."""

from collections.abc import Mapping
from itertools import product

import numpy as np

from aggregator.allocate.choices import Groups, Infeasible, Table
from aggregator.allocate.program import Solution


def brute_force(groups: Groups, at_most: Mapping[str, float], at_least: Mapping[str, int]) -> Solution:
    """What `program.solve` finds.

    Raises:
        Infeasible: there is none.
    """
    table = Table.of(groups, at_most, at_least)
    picks = map(np.array, product(*(range(len(group)) for group in groups)))
    kept = [pick for pick in picks if table.keeps(table.starts_G + pick)]
    if not kept:
        raise Infeasible("no selection keeps the limits")
    best = max(kept, key=lambda pick: table.worth_C[table.starts_G + pick].sum())
    worth = int(table.worth_C[table.starts_G + best].sum())
    return Solution(tuple(best.tolist()), worth, worth)
