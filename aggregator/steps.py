"""Steps that the aggregator announces for `stosign`, so that all updates of a round are sums of the same whole numbers.

A step has to reach as far as most changes of a tensor do, and no further: a bit's variance is s² − v² (`protocol.codec.
stochastic_sign`). How far they reach is told by how far the last round moved the tensor; single devices go further than
their mean, which `REACH` allows for.
"""

from typing import Final

import numpy as np

from aggregator.model import GlobalModel
from protocol.architecture import Role
from protocol.precision import FP32

REACH: Final = 4.0
"""Steps in units of the root mean square of the last move."""


def announced(before: GlobalModel, after: GlobalModel) -> tuple[float, ...]:
    """A step for each weight tensor in wire order; none at all where one of them did not move, so that none is zero."""
    names = [spec.name for spec in after.network.tensors(FP32) if spec.role is Role.WEIGHT]
    moved = (np.square(after.shared[name] - before.shared[name], dtype=np.float64).mean() for name in names)
    steps = tuple(float(np.float32(REACH * np.sqrt(square))) for square in moved)
    return steps if all(steps) else ()
