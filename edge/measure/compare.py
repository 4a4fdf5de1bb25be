"""Whether one is faster than another, or only looks so today.

A difference is called one when all of this holds:

- the interval of the ratio leaves out 1, for elapsed time and for processor time: what merely waited for its processor
  has not changed (with other threads only elapsed time can tell);
- it is larger than the noise floor: what two processes of the same program differ by (3 %; T. Mytkowicz et al.,
  "Producing Wrong Data Without Doing Anything Obviously Wrong!", ASPLOS 2009, found up to 8 from memory layout alone),
  what either series wandered between its halves, and twice what the yardstick moved between two runs.

A yardstick feels noise that is longer than a run, which no spread inside a run shows; twice, since it does not feel
all that a model feels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from edge.measure.document import Document, DocumentError, Measured, Window
from edge.measure.intervals import MIN_WINDOWS, Interval, paired, shift, unpaired, wander

SAME_PROGRAM: Final = 0.03
YARDSTICK_FACTOR: Final = 2.0
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
        speed_up: elapsed time of the first over that of the second; None for too few windows.
        cpu_speed_up: the same of processor time.
        noise: floor as a fraction, below which a difference is none.
        verdict: on the second.
        reason: of a verdict that is none of faster and slower.
    """

    first: str
    second: str
    speed_up: Interval | None
    cpu_speed_up: Interval | None
    noise: float
    verdict: Verdict
    reason: str

    @property
    def sentence(self) -> str:
        """For a report."""
        if self.speed_up is None:
            return f"{self.verdict}: {self.reason}"
        elapsed = f"{_told(self.speed_up)} in elapsed time"
        if self.verdict is Verdict.NO_DIFFERENCE or self.cpu_speed_up is None:
            return f"{self.verdict} ({elapsed}; {self.reason})"
        worked = f"{_told(self.cpu_speed_up)} in processor time"
        # On a busy machine the longer call is interrupted more often, and elapsed time flatters the shorter one.
        modest, other = elapsed, worked
        if shift(self.cpu_speed_up.ratio, 1.0) < shift(self.speed_up.ratio, 1.0):
            modest, other = worked, elapsed
        return f"{self.verdict}, {modest} ({other})"


def within(document: Document) -> list[Comparison]:
    """Every further subject against the first that is called in the same way, window by window of the same turn."""
    made: list[Comparison] = []
    for number, second in enumerate(document.subjects):
        before = document.subjects[:number]
        first = next((one for one in before if _asked(one) == _asked(second)), None)
        if first is not None:
            made.append(_within(first, second))
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
    same_threads = first.plan.threads == second.plan.threads
    return [_between(a, b, drift, same_threads=same_threads) for a, b in _pairs(first, second)]


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


def _within(first: Measured, second: Measured) -> Comparison:
    by_turn = {window.turn: window for window in first.counted}
    pairs = [(by_turn[window.turn], window) for window in second.counted if window.turn in by_turn]
    if len(pairs) < MIN_WINDOWS:
        return _too_few(first, second, len(pairs))
    firsts_ms, firsts_cpu_ms = _series([one for one, _ in pairs])
    seconds_ms, seconds_cpu_ms = _series([other for _, other in pairs])
    drift = wander([one / other for one, other in zip(firsts_ms, seconds_ms, strict=True)])
    elapsed, worked = paired(firsts_ms, seconds_ms), paired(firsts_cpu_ms, seconds_cpu_ms)
    return _judged(first, second, elapsed, worked, max(SAME_PROGRAM, drift))


def _between(first: Measured, second: Measured, drift: float, *, same_threads: bool) -> Comparison:
    fewest = min(len(first.counted), len(second.counted))
    if fewest < MIN_WINDOWS:
        return _too_few(first, second, fewest)
    firsts_ms, firsts_cpu_ms = _series(first.counted)
    seconds_ms, seconds_cpu_ms = _series(second.counted)
    elapsed = unpaired(firsts_ms, seconds_ms)
    worked = unpaired(firsts_cpu_ms, seconds_cpu_ms) if same_threads else elapsed
    noise = max(SAME_PROGRAM, drift, wander(firsts_ms), wander(seconds_ms))
    return _judged(first, second, elapsed, worked, noise)


def _series(windows: Sequence[Window]) -> tuple[list[float], list[float]]:
    return _ticked(window.p50_ms for window in windows), _ticked(window.cpu_p50_ms for window in windows)


def _ticked(times_ms: Iterable[float]) -> list[float]:
    return [max(time_ms, TICK_MS) for time_ms in times_ms]


def _judged(first: Measured, second: Measured, elapsed: Interval, worked: Interval, noise: float) -> Comparison:
    verdict, reason = Verdict.NO_DIFFERENCE, ""
    if not elapsed.excludes_one():
        reason = "1 is within the interval"
    elif shift(elapsed.ratio, 1.0) <= noise:
        reason = f"within the noise of {noise:.1%}"
    elif not worked.excludes_one() or (worked.ratio > 1) != (elapsed.ratio > 1):
        reason = f"processor time does not show it, {_told(worked)}"
    else:
        verdict = Verdict.FASTER if elapsed.ratio > 1 else Verdict.SLOWER
    return Comparison(first.label, second.label, elapsed, worked, noise, verdict, reason)


def _told(ratio: Interval) -> str:
    return f"{ratio.ratio:.3g}× [{ratio.low:.3g}, {ratio.high:.3g}]"


def _too_few(first: Measured, second: Measured, found: int) -> Comparison:
    reason = f"{found} windows that count on both sides, expected {MIN_WINDOWS} or more"
    return Comparison(first.label, second.label, None, None, SAME_PROGRAM, Verdict.UNKNOWN, reason)


def _asked(subject: Measured) -> tuple[str, int]:
    return subject.facts.kind, subject.facts.batch
