"""What accuracy a precision is expected to reach: as the fleet's exports were rated, else a prior by bits.

The prior is what weights of 8, 6, 4, 3, 2 and 1 bits, and activations of 8, may lose against fp32 by this project's
own limits for trained precisions (preset `qrfl`), a little more at 6 bits than at 8; what lies between, and narrower
activations, are guesses that keep the order. Only its differences count. Where some precisions were rated, the
others stand beside them as far apart as in the prior.

A wider precision is never expected to reach less than a narrower one: where ratings say so, few pictures or little
training spoke, and devices would follow noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType
from typing import Final

from protocol.precision import Precision

PRIOR_FP32: Final = 0.9
"""Where nothing was rated; the same for all, so that it decides nothing."""
WEIGHT_LOSS: Final = MappingProxyType(
    {32: 0.0, 16: 0.001, 8: 0.003, 7: 0.0035, 6: 0.004, 5: 0.0045, 4: 0.005, 3: 0.007, 2: 0.012, 1: 0.02}
)
ACTIVATION_LOSS: Final = MappingProxyType({32: 0.0, 8: 0.003, 4: 0.006, 3: 0.01, 2: 0.018, 1: 0.04})
UNIT: Final = 1e-4
"""A hundredth of a point, finer than 10,000 held-out pictures tell; a wider precision is better by that at least."""


@dataclass(frozen=True, slots=True)
class Expected:
    """An accuracy in [0, 1], and whether it is `rated` or `prior`."""

    accuracy: float
    source: str


def prior(precision: Precision) -> float:
    """What a precision reaches as far as nobody has looked."""
    return PRIOR_FP32 - WEIGHT_LOSS[precision.weight_bits] - ACTIVATION_LOSS[precision.activation_bits]


def expected(precisions: Sequence[Precision], rated: Mapping[str, Sequence[float]]) -> dict[str, Expected]:
    """What each precision is expected to reach.

    Args:
        precisions: best first.
        rated: accuracies of the newest exports by precision, in any order.
    """
    means = {name: fmean(values) for name, values in rated.items() if values}
    known = [means[str(precision)] - prior(precision) for precision in precisions if str(precision) in means]
    beside = fmean(known) if known else 0.0
    found: dict[str, Expected] = {}
    least = -1.0
    for precision in reversed(precisions):
        name = str(precision)
        value = means.get(name, prior(precision) + beside)
        least = max(value, least + UNIT)
        found[name] = Expected(least, "rated" if name in means else "prior")
    return found
