"""Bits per round and direction: one policy per file behind `base.Policy`, spelled as a string.

    fixed               the job's recipe and downlink
    feddq:0.01          updates in steps of 0.01, so that their bits fall with their range
    adaquantfl:2        2 levels at first, more as the loss falls
    dadaquant:1         1 level at first, twice as many whenever the loss stops falling; by share of pictures
    fedaq:0.1           bits both ways, for 0.1 joules a round in the mean
    fedaq-layers:0.1    the same with bits of its own for each layer
    best:0.1            steps and feedback both ways, likewise

`+rc` after any but the first codes without loss what is left to code; without it `best` rotates instead.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from aggregator.rates.adaquantfl import LEVELS, AdaQuantFl
from aggregator.rates.base import Policy
from aggregator.rates.best import Best
from aggregator.rates.dadaquant import FIRST_LEVELS, DAdaQuant
from aggregator.rates.fedaq import FedAq
from aggregator.rates.fedaq_layers import FedAqLayers
from aggregator.rates.feddq import RESOLUTION, FedDq
from aggregator.rates.fixed import Fixed
from protocol.errors import Unsupported

FIXED: Final = "fixed"
BY_STEPS: Final = frozenset({"feddq", "best"})
"""Policies whose updates are whole steps, most of them none."""
_FORM: Final = re.compile(r"(?P<name>[a-z-]+)(:(?P<number>\d*\.?\d+(e-?\d+)?))?(?P<coder>\+rc)?")
_MAX_LEVELS: Final = 255


def policy(spec: str, recipe: str, downlink: str) -> Policy:
    """The policy that a spec names.

    Args:
        spec: as above.
        recipe: the job's, for what is not adapted.
        downlink: the job's, likewise.

    Raises:
        Unsupported: there is no such policy, or its number is out of bounds.
    """
    match = _FORM.fullmatch(spec)
    number = None if match is None or match["number"] is None else float(match["number"])
    coder = "" if match is None else match["coder"] or ""
    made = _MAKERS[match["name"]](number, coder, downlink) if match and match["name"] in _MAKERS else None
    if spec == FIXED:
        made = Fixed(recipe, downlink)
    if made is None:
        raise Unsupported(
            f"rates {spec[:48]!r}: expected fixed, feddq:STEP, adaquantfl:LEVELS, dadaquant:LEVELS,"
            " fedaq:JOULES, fedaq-layers:JOULES or best:JOULES, all but the first with +rc if need be; steps up to 10,"
            " levels 1 to 255, joules above 0"
        )
    return made


def _feddq(number: float | None, coder: str, downlink: str) -> Policy | None:
    step = RESOLUTION if number is None else number
    return FedDq(step, coder, downlink) if 1e-8 <= step <= 10 else None


def _by_levels(
    made: type[AdaQuantFl | DAdaQuant], usual: int, number: float | None, coder: str, downlink: str
) -> Policy | None:
    levels = usual if number is None else number
    return made(int(levels), coder, downlink) if levels in range(1, _MAX_LEVELS + 1) else None


def _by_budget(made: type[FedAq | FedAqLayers | Best], number: float | None, coder: str, _: str) -> Policy | None:
    return made(number, coder) if number else None


_MAKERS: Final[dict[str, Callable[[float | None, str, str], Policy | None]]] = {
    "feddq": _feddq,
    "adaquantfl": partial(_by_levels, AdaQuantFl, LEVELS),
    "dadaquant": partial(_by_levels, DAdaQuant, FIRST_LEVELS),
    "fedaq": partial(_by_budget, FedAq),
    "fedaq-layers": partial(_by_budget, FedAqLayers),
    "best": partial(_by_budget, Best),
}
