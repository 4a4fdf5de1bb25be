"""When a device gives cause for doubt, and when there was enough of it. Pure; who keeps count is `quarantine`.

An update stands out if it lies further than the others of its round and precision do, by the robust z-score

    z = (x − median) / max(1.4826·MAD, median/20)        B. Iglewicz, D. C. Hoaglin, 1993: above 3.5

of its norm, or of how far it lies from what a robust rule settled. Median and MAD (median absolute deviation) do not
move while fewer than half lie. Devices of other precisions are another kind: their updates differ in size for good
reasons. The floor keeps a fleet whose updates are nearly alike from finding an outlier in every round.

Nobody is shut out for one accident: it takes k causes within the last m rounds that the device took part in.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

OFF: Final = "off"
LEAST: Final = 5
"""Updates of a kind from which on one can stand out: of four, two may lie."""
FAR: Final = 3.5
_NORMAL: Final = 1.4826
"""MAD of a normal distribution, in standard deviations, the other way round."""
_FLOOR: Final = 0.05
_FORM: Final = re.compile(r"(\d{1,3})/(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Strikes:
    """How much cause is enough: `wanted` of the last `window` rounds, at least two; 0 of 0 where nothing ever is."""

    wanted: int = 0
    window: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `off` or `k/m`.

        Raises:
            ValueError: it is neither.
        """
        if text == OFF:
            return cls()
        match = _FORM.fullmatch(text)
        wanted, window = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 2 <= wanted <= window:
            raise ValueError("expected off, or k/m such as 3/5, with 2 ≤ k ≤ m: nothing is decided by one accident")
        return cls(wanted, window)

    def enough(self, causes: Sequence[bool], *, on_probation: bool = False) -> bool:
        """Whether a device is shut out.

        Args:
            causes: for each round that it took part in since it was last let in, whether it gave cause; oldest first.
            on_probation: whether it was let in again by time alone, so that one more within the window is enough.
        """
        if not self.wanted:
            return False
        needed = 1 if on_probation and len(causes) <= self.window else self.wanted
        return sum(causes[-self.window :]) >= needed


def standing_out(values: Mapping[str, float], kinds: Mapping[str, str]) -> dict[str, float]:
    """The z-scores of those that lie too far out, by name, each among its kind."""
    found: dict[str, float] = {}
    for kind in sorted(set(kinds.values())):
        among = {name: value for name, value in values.items() if kinds[name] == kind}
        found |= {name: z for name, z in _scores(among).items() if z > FAR}
    return found


def _scores(values: Mapping[str, float]) -> dict[str, float]:
    if len(values) < LEAST:
        return {}
    middle = median(values.values())
    spread = max(_NORMAL * median(abs(value - middle) for value in values.values()), _FLOOR * middle)
    if not spread:  # more than half are alike at zero
        return {}
    return {name: (value - middle) / spread for name, value in values.items()}
