"""A piece of work that never changes, timed between the windows: when it takes longer, the machine got slower.

Two runs can differ by ten percent with nothing changed but the neighbours, the clock rate or the room's temperature,
and no spread inside either run tells of it. What the yardstick moved between them does.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

_CACHED: Final = 1 << 15
"""float32 values that stay in a cache of any board, 128 kB: arithmetic."""
_STREAMED: Final = 1 << 20
"""float32 values that do not, 4 MB: the way to memory, which neighbours share."""


def yardstick() -> Callable[[], object]:
    """The work: some milliseconds of numpy on the calling thread, without BLAS and its threads."""
    rng = np.random.default_rng(0)
    cached_N = rng.random(_CACHED, np.float32)
    streamed_N, out_N = rng.random(_STREAMED, np.float32), np.empty(_STREAMED, np.float32)

    def work() -> None:
        for _ in range(8):
            np.sqrt(cached_N, out=cached_N)
            np.multiply(cached_N, cached_N, out=cached_N)
        np.add(streamed_N, 1.0, out=out_N)

    return work
