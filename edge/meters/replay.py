"""A meter that plays a recorded trace through the same integral as a board's own, by the trace's clock.

It says what some board took at some time, not what the work at hand takes: whatever is spanned with it is therefore
called modelled, and birth names no meter.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from edge.meters.base import Accuracy, MeterError, Passive, Reading
from edge.meters.tally import MAX_GAP_PERIODS, Trapezoid
from edge.meters.trace import Sample, Trace, read_trace

NAME: Final = "replay"


class ReplayMeter(Passive):
    """Begins with the trace's first sample when the block is entered.

    A reading between two samples is on the line between them, as the trapezoid rule has it.

    Args:
        trace: what to play.
        monotonic: seconds that never jump.
    """

    def __init__(self, trace: Trace, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        what = trace.header.meter
        self.description = replace(
            what,
            name=f"{NAME} of {what.name}",
            accuracy=Accuracy.MODEL,
            includes=f"recorded on {trace.header.board} ({trace.header.recorded}): {what.includes}",
        )
        self._samples, self._monotonic = trace.samples, monotonic
        self._max_mw, self._max_gap_s = trace.header.max_mw, MAX_GAP_PERIODS / what.rate_hz
        self._tally = Trapezoid(self.description.name, self._max_mw, self._max_gap_s)
        self._next, self._began_s = 0, 0.0
        self._failure: MeterError | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._began_s = self._monotonic() - self._samples[0].t_s
        return self

    def read(self) -> Reading:
        """The total by now.

        Raises:
            MeterError: the board's meter failed at this time, or the trace has ended.
        """
        with self._lock:
            now_s = self._monotonic() - self._began_s
            while self._next < len(self._samples) and self._samples[self._next].t_s <= now_s:
                self._take(self._samples[self._next])
                self._next += 1
            if self._next == len(self._samples) and now_s > self._samples[-1].t_s:
                raise MeterError(f"meter {self.description.name}: ended after {self._samples[-1].t_s:g} s")
            if self._failure is not None:
                raise self._failure
            self._take_between(now_s)
            return Reading(self._tally.total_mj, self._tally.holes)

    def _take(self, sample: Sample) -> None:
        self._failure = None
        if sample.mw is None:
            self._tally.interrupt()
            self._failure = MeterError(f"meter {self.description.name}, {sample.t_s:g} s: {sample.error}")
            return
        try:
            self._tally.add(sample.t_s, sample.mw)
        except MeterError as error:
            self._failure = error

    def _take_between(self, now_s: float) -> None:
        """A point on the line from the last sample to the next, where there is a line."""
        if self._next == len(self._samples):
            return
        before, after = self._samples[self._next - 1], self._samples[self._next]
        apart_s = after.t_s - before.t_s
        if self._counts(before) and self._counts(after) and 0.0 < apart_s <= self._max_gap_s:
            assert before.mw is not None
            assert after.mw is not None
            part = (now_s - before.t_s) / apart_s
            self._take(Sample(now_s, before.mw + part * (after.mw - before.mw)))

    def _counts(self, sample: Sample) -> bool:
        return sample.mw is not None and 0.0 < sample.mw <= self._max_mw


def replay(argument: str) -> ReplayMeter:
    """The meter of `replay:FILE`.

    Raises:
        MeterError: the file is no trace.
    """
    return ReplayMeter(read_trace(Path(argument).expanduser()))
