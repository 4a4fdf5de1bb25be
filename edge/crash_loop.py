"""A device that dies again and again stops working and stays reachable, so that it can be seen and helped."""

import time
from collections.abc import Callable
from typing import Final, Self

from edge.gates import MINUTE_S, Closed
from edge.lifecycle import Lifecycle
from edge.state import Journal
from protocol.messages import DeclineReason

CRASHES: Final = 5
WINDOW_S: Final = 10 * MINUTE_S
SHORT_LIFE_S: Final = MINUTE_S
SAFE_MODE_S: Final = 10 * MINUTE_S


class CrashLoop:
    """A gate that is closed after `CRASHES` starts within `WINDOW_S` that each lived below `SHORT_LIFE_S`.

    Link and inference stay up. It opens when a start has lived for `SAFE_MODE_S`. As a context manager it counts the
    start on entry; leaving without an exception was no crash.

    Args:
        journal: remembers the starts.
        clock: wall-clock seconds.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._clock, self._monotonic = journal, clock, monotonic
        self._born_s = monotonic()
        self._looping = False

    def __enter__(self) -> Self:
        now = self._clock()
        # Either way round: a clock that was set in between is no reason to crash on.
        recent = [start for start in self._journal.record.starts if abs(now - start) <= WINDOW_S]
        starts = (*recent[-CRASHES:], now)
        self._journal.change(starts=starts)
        self._looping = len(recent) >= CRASHES
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._journal.change(starts=self._journal.record.starts[:-1])

    def check(self) -> Closed | None:
        """Closed while looping; forgets the starts once this one has lived long enough."""
        left_s = (SAFE_MODE_S if self._looping else SHORT_LIFE_S) - (self._monotonic() - self._born_s)
        if left_s <= 0:
            if self._journal.record.starts:
                self._journal.change(starts=())
            self._looping = False
        if not self._looping:
            return None
        detail = f"{CRASHES} crashes within {WINDOW_S / MINUTE_S:.0f} minutes; inference only for now"
        return Closed(Lifecycle.SAFE_MODE, DeclineReason.SAFE_MODE, detail, left_s)
