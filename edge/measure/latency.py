"""Warm-up until the median stands still, and percentiles from all raw samples after it."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.measure.calls import NS_PER_MS, Calls
from edge.measure.subject import Subject

STEADY: Final = 0.02
"""Steady: the medians of the last pieces lie within 2 % of one another."""
PIECES: Final = 5
MIN_SAMPLES_OF_P99: Final = 1000
"""Below it the 99th percentile hangs on fewer than ten calls, and is not stated."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What came before the first window: so many calls and seconds, and whether the median stood still at the end."""

    calls: int
    seconds: float
    steady: bool


@dataclass(frozen=True, slots=True)
class Latency:
    """Elapsed time of a call in milliseconds, and the median of its processor time.

    Attributes:
        samples: calls behind it.
        p50_ms: median, p90_ms likewise.
        p99_ms: None below 1000 samples.
        max_ms: the slowest.
        cpu_p50_ms: median of what it worked, without waiting for a processor.
    """

    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    max_ms: float
    cpu_p50_ms: float


def warm_up(subject: Subject, piece_s: float, cap_s: float) -> WarmUp:
    """Run pieces until the last `PIECES` medians are within `STEADY`, or `cap_s` have passed.

    Args:
        subject: entered already.
        piece_s: length of a piece.
        cap_s: a machine with restless neighbours never gets steady; the document then says so.
    """
    medians_ms: deque[float] = deque(maxlen=PIECES)
    calls, seconds = 0, 0.0
    while seconds < cap_s:
        piece = subject.run(piece_s, 3)
        medians_ms.append(piece.p50_ms)
        calls, seconds = calls + len(piece), seconds + piece.window_s
        if len(medians_ms) == PIECES and max(medians_ms) <= (1 + STEADY) * min(medians_ms):
            return WarmUp(calls, seconds, steady=True)
    return WarmUp(calls, seconds, steady=False)


def latency_of(windows: Sequence[Calls]) -> Latency:
    """Percentiles over every call of all `windows`, of which there is at least one."""
    wall_ms = np.concatenate([window.wall_ns for window in windows]) / NS_PER_MS
    cpu_ms = np.concatenate([window.cpu_ns for window in windows]) / NS_PER_MS
    p50, p90, p99 = (float(value) for value in np.percentile(wall_ms, (50, 90, 99)))
    return Latency(
        samples=len(wall_ms),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99 if len(wall_ms) >= MIN_SAMPLES_OF_P99 else None,
        max_ms=float(wall_ms.max()),
        cpu_p50_ms=float(np.median(cpu_ms)),
    )
