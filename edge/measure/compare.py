"""Whether one is faster than another, or only looks so today.

One clock decides: processor time where the same single thread computes on both sides, since what merely waited for its
processor has not changed; elapsed time where there are several threads, whose waiting is part of what they do. A
difference is called one when the interval of that clock's ratio leaves out 1, elapsed time's does so on the same side,
and the deciding ratio exceeds the noise, which is the largest of

- 3 %, for what two processes of the same program differ by (T. Mytkowicz et al., "Producing Wrong Data Without Doing
  Anything Obviously Wrong!", ASPLOS 2009, on what the layout of memory alone does);
- what a series wandered between its halves;
- between two runs, twice what the yardstick moved: it feels noise that is longer than a run, though not all that a
  model feels;
- between two runs, the time waited in proportion to the time worked: whoever takes the processor takes the caches too.
  On two busy cores the same model's processor time was seen to differ by 76 % between a run that hardly waited and one
  that waited 2.6 times as long as it worked, and by 4 % between twins within a run.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final, Self

from edge.measure.document import Document, DocumentError, Measured, Window
from edge.measure.intervals import MIN_WINDOWS, Interval, paired, shift, unpaired, wander

SAME_PROGRAM: Final = 0.03
YARDSTICK_FACTOR: Final = 2.0
ELAPSED: Final = "elapsed time"
WORKED: Final = "processor time"
TICK_MS: Final = 1e-6
"""A clock that did not tick tells of a nanosecond at least; there is no ratio to nothing."""


class Verdict(StrEnum):
    """What can be said."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    UNKNOWN = "unknown"
    """Too few windows."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A second subject against a first.

    Attributes:
        first: its label; second likewise.
        elapsed: elapsed time of the first over that of the second; None for too few windows.
        worked: the same of processor time.
        decided_by: which of them decided.
        noise: floor as a fraction, below which a difference is none.
        verdict: on the second.
        reason: of a verdict that is none of faster and slower.
    """

    first: str
    second: str
    elapsed: Interval | None
    worked: Interval | None
    decided_by: str
    noise: float
    verdict: Verdict
    reason: str

    @property
    def sentence(self) -> str:
        """For a report."""
        if self.elapsed is None or self.worked is None:
            return f"{self.verdict}: {self.reason}"
        told = [f"{_told(self.elapsed)} in {ELAPSED}", f"{_told(self.worked)} in {WORKED}"]
        first, other = reversed(told) if self.decided_by == WORKED else told
        if self.verdict is Verdict.NO_DIFFERENCE:
            return f"{self.verdict}: {first}, {self.reason}"
        return f"{self.verdict}, {first} ({other})"


def within(document: Document) -> list[Comparison]:
    """Every further subject against the first that is called in the same way, window by window of the same turn."""
    made: list[Comparison] = []
    for number, second in enumerate(document.subjects):
        before = document.subjects[:number]
        first = next((one for one in before if _asked(one) == _asked(second)), None)
        if first is not None:
            made.append(_within(first, second, single=document.plan.threads == 1))
    return made


def between(first: Document, second: Document) -> list[Comparison]:
    """Every subject that both documents have; where they have none in common, their only ones.

    Raises:
        DocumentError: there is no such pair.
    """
    drift = 0.0
    if first.yardstick_ms and second.yardstick_ms and first.conditions.board == second.conditions.board:
        then_ms, now_ms = (median(_ticked(one.yardstick_ms)) for one in (first, second))
        drift = YARDSTICK_FACTOR * shift(then_ms, now_ms)
    single = first.plan.threads == second.plan.threads == 1
    return [_between(a, b, drift, single=single) for a, b in _pairs(first, second)]


def caveats(first: Document, second: Document) -> Iterator[str]:
    """In what the two runs differ besides their models."""
    a, b = first.conditions, second.conditions
    for name in ("board", "kernel", "governor", "threads", "nice"):
        if getattr(a, name) != getattr(b, name):
            yield f"{name}: {getattr(a, name)} against {getattr(b, name)}"
    for package in sorted(a.versions.keys() | b.versions.keys()):
        old, new = a.versions.get(package), b.versions.get(package)
        if old != new:
            yield f"{package}: {old or 'none'} against {new or 'none'}"
    for name, document in (("first", first), ("second", second)):
        if not document.complete:
            yield f"the {name} run was interrupted"


def _pairs(first: Document, second: Document) -> list[tuple[Measured, Measured]]:
    by_label = {subject.label: subject for subject in second.subjects}
    pairs = [(subject, by_label[subject.label]) for subject in first.subjects if subject.label in by_label]
    if not pairs and len(first.subjects) == len(second.subjects) == 1:
        pairs = [(first.subjects[0], second.subjects[0])]
    if not pairs:
        labels = ["; ".join(subject.label for subject in document.subjects) or "none" for document in (first, second)]
        raise DocumentError(f"nothing to compare: the first has {labels[0]}, the second {labels[1]}")
    return pairs


def _within(first: Measured, second: Measured, *, single: bool) -> Comparison:
    by_turn = {window.turn: window for window in first.counted}
    pairs = [(by_turn[window.turn], window) for window in second.counted if window.turn in by_turn]
    if len(pairs) < MIN_WINDOWS:
        return _too_few(first, second, len(pairs))
    one, other = _Series.of([a for a, _ in pairs]), _Series.of([b for _, b in pairs])
    ratios = [a / b for a, b in zip(one.deciding(single=single), other.deciding(single=single), strict=True)]
    elapsed, worked = paired(one.elapsed_ms, other.elapsed_ms), paired(one.worked_ms, other.worked_ms)
    return _judged(first, second, elapsed, worked, max(SAME_PROGRAM, wander(ratios)), single=single)


def _between(first: Measured, second: Measured, drift: float, *, single: bool) -> Comparison:
    fewest = min(len(first.counted), len(second.counted))
    if fewest < MIN_WINDOWS:
        return _too_few(first, second, fewest)
    both = one, other = _Series.of(first.counted), _Series.of(second.counted)
    elapsed, worked = unpaired(one.elapsed_ms, other.elapsed_ms), unpaired(one.worked_ms, other.worked_ms)
    wandered = [wander(series.deciding(single=single)) for series in both]
    waited = [series.waited for series in both] if single else []
    return _judged(first, second, elapsed, worked, max(SAME_PROGRAM, drift, *wandered, *waited), single=single)


@dataclass(frozen=True, slots=True)
class _Series:
    """Window medians by both clocks."""

    elapsed_ms: list[float]
    worked_ms: list[float]

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Self:
        return cls(_ticked(window.p50_ms for window in windows), _ticked(window.cpu_p50_ms for window in windows))

    def deciding(self, *, single: bool) -> list[float]:
        return self.worked_ms if single else self.elapsed_ms

    @property
    def waited(self) -> float:
        """Time without a processor over time with one."""
        return max(0.0, median(self.elapsed_ms) / median(self.worked_ms) - 1)


def _ticked(times_ms: Iterable[float]) -> list[float]:
    return [max(time_ms, TICK_MS) for time_ms in times_ms]


def _judged(
    first: Measured, second: Measured, elapsed: Interval, worked: Interval, noise: float, *, single: bool
) -> Comparison:
    deciding = worked if single else elapsed
    verdict, reason = Verdict.NO_DIFFERENCE, ""
    if not deciding.excludes_one():
        reason = "which may be 1"
    elif shift(deciding.ratio, 1.0) <= noise:
        reason = f"within the noise of {noise:.1%}"
    elif not elapsed.excludes_one() or (elapsed.ratio > 1) != (deciding.ratio > 1):
        reason = f"but elapsed time does not show it, {_told(elapsed)}"
    else:
        verdict = Verdict.FASTER if deciding.ratio > 1 else Verdict.SLOWER
    decided_by = WORKED if single else ELAPSED
    return Comparison(first.label, second.label, elapsed, worked, decided_by, noise, verdict, reason)


def _told(ratio: Interval) -> str:
    return f"{ratio.ratio:.3g}× [{ratio.low:.3g}, {ratio.high:.3g}]"


def _too_few(first: Measured, second: Measured, found: int) -> Comparison:
    reason = f"{found} windows that count on both sides, expected {MIN_WINDOWS} or more"
    return Comparison(first.label, second.label, None, None, "", SAME_PROGRAM, Verdict.UNKNOWN, reason)


def _asked(subject: Measured) -> tuple[str, int]:
    return subject.facts.kind, subject.facts.batch
