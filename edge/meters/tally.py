"""From what a sensor says to a total: samples of power by the trapezoid rule, counters by their differences.

Both are values with arithmetic: no clock, no thread, no file. What cannot be is never added; it is a hole.
"""

from typing import Final, Protocol, TypeVar

from edge.meters.base import MeterError

Said_contra = TypeVar("Said_contra", contravariant=True)

MAX_GAP_PERIODS: Final = 5.0
"""Over fewer missed samples the line between two of them is a fair guess; a measurement with a longer gap is void."""
COUNTER_STEP_S: Final = 0.002
"""Counters are brought up to date about once a millisecond, so two readings may differ by one step's energy more than
the time between them explains."""
STILL_S: Final = 0.1
"""A processor that runs this very program takes energy: a counter that stands still for so long is none. Virtual
machines have such."""
_UJ_PER_MJ: Final = 1000.0


class Tally(Protocol[Said_contra]):
    """A total that grows.

    Attributes:
        total_mj: millijoules of all time that was seen.
        holes: how often time was not seen.
    """

    total_mj: float
    holes: int

    def add(self, at_s: float, said: Said_contra) -> None:
        """Take what was said at `at_s`, seconds of any clock that never jumps.

        Raises:
            MeterError: it cannot be; nothing was added and the total is interrupted.
        """
        ...

    def interrupt(self) -> None:
        """From what was said last until what is said next, nothing is known."""
        ...


class Trapezoid:
    """Energy from samples of power: E = Σ (p₁ + p₂)/2 · (t₂ − t₁).

    A sample counts if it is finite, above 0 (the device that asks is running) and at most `max_mw`.

    Args:
        name: of the meter, for messages.
        max_mw: the largest power that can be.
        max_gap_s: time between two samples above which what lies between them is a hole.
    """

    def __init__(self, name: str, max_mw: float, max_gap_s: float) -> None:
        self.total_mj, self.holes = 0.0, 0
        self._name, self._max_mw, self._max_gap_s = name, max_mw, max_gap_s
        self._last: tuple[float, float] | None = None

    def add(self, at_s: float, said: float) -> None:
        """Take a sample in milliwatts."""
        if not 0.0 < said <= self._max_mw:  # false for what is not a number, too
            self.interrupt()
            raise MeterError(
                f"meter {self._name}: {said:g} mW, expected more than 0 and at most {self._max_mw:g} mW of a device"
                " that is running"
            )
        if self._last is not None:
            last_s, last_mw = self._last
            if 0.0 <= at_s - last_s <= self._max_gap_s:
                self.total_mj += (last_mw + said) / 2 * (at_s - last_s)
            else:
                self.holes += 1
        self._last = at_s, said

    def interrupt(self) -> None:
        """Forget the last sample."""
        if self._last is not None:
            self.holes += 1
            self._last = None


class Differences:
    """Energy from counters that wrap: E = Σ (n₂ − n₁), plus the counter's range where it began anew.

    A decrease is a wrap if the power that this implies can be; else the counter was reset, or jumped, and that is a
    hole. So is time in which a counter could have wrapped more than once.

    Args:
        name: of the meter, for messages.
        max_mw: the largest power of one counter that can be.
        ranges_uj: the value after which each counter begins at 0 again.
    """

    def __init__(self, name: str, max_mw: float, ranges_uj: tuple[int, ...]) -> None:
        self.total_mj, self.holes = 0.0, 0
        self._name, self._max_mw, self._ranges_uj = name, max_mw, ranges_uj
        self._last: tuple[float, tuple[int, ...]] | None = None
        self._moved: tuple[float, tuple[int, ...]] | None = None

    def add(self, at_s: float, said: tuple[int, ...]) -> None:
        """Take the counters' values, in microjoules."""
        self._check(at_s, said)
        if self._last is not None:
            spent_mj = self._between(*self._last, at_s, said)
            if spent_mj is None:
                self.holes += 1
            else:
                self.total_mj += spent_mj
        self._last = at_s, said

    def interrupt(self) -> None:
        """Forget the last values."""
        if self._last is not None:
            self.holes += 1
            self._last = None

    def _check(self, at_s: float, counts_uj: tuple[int, ...]) -> None:
        """Raise MeterError for values out of range, or when all have stood still too long."""
        for count_uj, range_uj in zip(counts_uj, self._ranges_uj, strict=True):
            if not 0 <= count_uj <= range_uj:
                self.interrupt()
                raise MeterError(f"meter {self._name}: counter at {count_uj} µJ, expected 0 to {range_uj}")
        if self._moved is None or self._moved[1] != counts_uj:
            self._moved = at_s, counts_uj
        elif (still_s := at_s - self._moved[0]) > STILL_S:
            self.interrupt()
            raise MeterError(
                f"meter {self._name}: still at {sum(counts_uj)} µJ after {still_s:.3g} s, expected a counter that moves"
            )

    def _between(
        self, before_s: float, before_uj: tuple[int, ...], at_s: float, counts_uj: tuple[int, ...]
    ) -> float | None:
        """Millijoules between two readings, None where they cannot be told."""
        most_mj = self._max_mw * (at_s - before_s + COUNTER_STEP_S)
        spent_mj = 0.0
        for before, now, range_uj in zip(before_uj, counts_uj, self._ranges_uj, strict=True):
            one_mj = (now - before + (range_uj if now < before else 0)) / _UJ_PER_MJ
            if one_mj > most_mj or most_mj >= range_uj / _UJ_PER_MJ:
                return None
            spent_mj += one_mj
        return spent_mj
