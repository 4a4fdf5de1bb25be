"""Exponential back-off with full jitter, so that a fleet does not come back all at once.

M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015: of the jitters compared there, the full one
costs the server least. Delay n is uniform in [0, min(cap, base·2ⁿ)].
"""

import random
from collections.abc import Iterator
from typing import Final

BASE_S: Final = 1.0
CAP_S: Final = 300.0
"""Five minutes: longer would leave a device away for no reason once the server is back."""
_MAX_DOUBLINGS: Final = 30


def delays_s(rng: random.Random, *, base_s: float = BASE_S, cap_s: float = CAP_S) -> Iterator[float]:
    """Seconds to wait before each next attempt, without end."""
    attempt = 0
    while True:
        yield rng.uniform(0, min(cap_s, base_s * 2 ** min(attempt, _MAX_DOUBLINGS)))
        attempt += 1
