"""A run: every subject warmed up, then turns in which each has one window, in an order drawn anew for every turn.

So whatever the neighbours, the clock rate and the temperature do, they do it to all subjects alike, and what is left
between two of them in the same turn is their own.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np

from edge.measure.calls import Calls, repeat
from edge.measure.conditions import Moment, conditions, moment
from edge.measure.document import SCHEMA, Document, Measured, Plan, Window
from edge.measure.energy import Baseline, WindowEnergy, baseline_of, energy_of, idle_power_mw
from edge.measure.latency import WarmUp, latency_of, warm_up
from edge.measure.subject import Subject
from edge.measure.throttling import throttled_between
from edge.measure.yardstick import yardstick
from edge.meters.base import Accuracy, Meter
from edge.meters.span import Span

Tell = Callable[[str], None]
"""Called before every step with what is done next."""

MIN_CALLS: Final = 5
"""In a window, however long they take: a median of fewer is none."""
YARDSTICK_SHARE: Final = 0.1
"""Of a window's length."""
WARM_UP_PIECE: Final = 0.2
"""Of a window's length, five of which must agree."""


@dataclass
class _Trace:
    """What is known of one subject so far."""

    subject: Subject
    warm_up: WarmUp = field(default_factory=lambda: WarmUp(0, 0.0, steady=False))
    windows: list[tuple[Calls, Window]] = field(default_factory=list)


def steps_of(plan: Plan, subjects: int, meter: Meter) -> int:
    """How often `tell` will be called."""
    return subjects * (1 + plan.windows) + (2 if _has_sensor(meter) else 0)


def measure(subjects: Sequence[Subject], meter: Meter, plan: Plan, tell: Tell = lambda _: None) -> Document:
    """Measure all subjects against one another.

    Args:
        subjects: one or more; the first is what the others are compared with.
        meter: opened already.
        plan: how.
        tell: learns of every step.

    Returns:
        The document; where Ctrl-C came in between, of the windows finished by then, and marked incomplete.

    Raises:
        MeasureError: a subject broke.
    """
    when, before = datetime.now(UTC), moment()
    traces = [_Trace(subject) for subject in subjects]
    idle_mw: list[float | None] = []
    yardstick_ms: list[float] = []
    complete = False
    try:
        with ExitStack() as stack:
            idle_mw += _idle(meter, plan, tell, "idle, before")
            for trace in traces:
                tell(f"{trace.subject.facts.label}: warm-up")
                stack.enter_context(trace.subject)
                trace.warm_up = warm_up(trace.subject, WARM_UP_PIECE * plan.window_s, plan.warm_up_s)
            _turns(traces, meter, plan, tell, yardstick_ms)
            idle_mw += _idle(meter, plan, tell, "idle, after")
        complete = True
    except KeyboardInterrupt:
        pass  # what is finished is worth keeping, and says that it is not all
    baseline = baseline_of(*idle_mw) if len(idle_mw) == 2 else None
    return Document(
        schema=SCHEMA,
        when=when.isoformat(timespec="seconds"),
        complete=complete,
        plan=plan,
        conditions=conditions(plan.threads, before, moment()),
        meter=meter.description,
        baseline=baseline,
        yardstick_ms=tuple(yardstick_ms),
        subjects=tuple(_measured(traces, meter, baseline)),
    )


def _turns(traces: Sequence[_Trace], meter: Meter, plan: Plan, tell: Tell, yardstick_ms: list[float]) -> None:
    rng, work = np.random.default_rng(plan.seed), yardstick()
    for turn in range(plan.windows):
        for number in rng.permutation(len(traces)):
            trace = traces[number]
            tell(f"{trace.subject.facts.label}: window {turn + 1} of {plan.windows}")
            trace.windows.append(_window(trace.subject, meter, plan, turn))
        yardstick_ms.append(repeat(work, YARDSTICK_SHARE * plan.window_s, MIN_CALLS).p50_ms)


def _window(subject: Subject, meter: Meter, plan: Plan, turn: int) -> tuple[Calls, Window]:
    before, span = moment(), Span(meter)
    calls = subject.run(plan.window_s, MIN_CALLS)
    energy = span.end(subject.facts.modelled_mj * len(calls))
    window = Window(
        turn=turn,
        calls=len(calls),
        wall_s=calls.window_s,
        p50_ms=calls.p50_ms,
        cpu_p50_ms=calls.cpu_p50_ms,
        gross_mj=energy.mj,
        source=energy.source,
        rejected=_rejected(before, moment()),
    )
    return calls, window


def _rejected(before: Moment, after: Moment) -> str:
    """Clock rates are recorded but reject nothing: where a governor is at work they never stand still."""
    return throttled_between(before.throttling, after.throttling)


def _idle(meter: Meter, plan: Plan, tell: Tell, what: str) -> Iterator[float | None]:
    if _has_sensor(meter):
        tell(what)
        yield idle_power_mw(meter, plan.baseline_s)


def _has_sensor(meter: Meter) -> bool:
    return meter.description.accuracy is not Accuracy.MODEL


def _measured(traces: Sequence[_Trace], meter: Meter, baseline: Baseline | None) -> Iterator[Measured]:
    seen: Counter[str] = Counter()
    for trace in traces:
        facts = trace.subject.facts
        seen[facts.label] += 1
        again = f" #{seen[facts.label]}" if seen[facts.label] > 1 else ""
        counted = [(calls, window) for calls, window in trace.windows if not window.rejected]
        energies = [
            WindowEnergy(window.gross_mj, window.source, len(calls), window.wall_s) for calls, window in counted
        ]
        yield Measured(
            label=f"{facts.label}{again}",
            facts=facts,
            load_ms=trace.subject.load_ms,
            first_call_ms=trace.subject.first_call_ms,
            warm_up=trace.warm_up,
            latency=latency_of([calls for calls, _ in counted]) if counted else None,
            energy=energy_of(energies, facts.modelled_mj, meter.description, baseline) if counted else None,
            windows=tuple(window for _, window in trace.windows),
        )
