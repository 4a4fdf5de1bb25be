"""A document for people: a table for the terminal, and lines of Markdown to paste into a report."""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Final

from rich.markup import escape
from rich.table import Column, Table

from edge.measure.compare import Comparison, Verdict, within
from edge.measure.conditions import Moment
from edge.measure.document import Document, Measured
from edge.measure.energy import CallEnergy
from edge.measure.latency import Latency
from protocol.messages import EnergySource

COLOURS = {Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.UNKNOWN: "yellow"}
MUCH_WAITING: Final = 0.1
"""Of a call's time; an idle machine's own interrupts take far less."""
_TIMES = ("p50", "p90", "p99", "max", "CPU p50")


def table(document: Document) -> Table:
    """Times in milliseconds, energy in millijoules, of one call."""
    numbers = [Column(name, justify="right", no_wrap=True) for name in (*_TIMES, *_energy_columns(document))]
    caption = "milliseconds and millijoules of one call"
    shown = Table(Column("what", no_wrap=True), *numbers, title=_title(document), caption=caption)
    for row in _rows(document):
        shown.add_row(*map(escape, row))
    return shown


def summary(document: Document) -> str:
    """Markdown that needs nothing beside it: conditions, figures, and what was wrong."""
    lines = [f"**{_title(document)}**", ""]
    lines += [f"- {line}" for line in _conditions(document)]
    columns = ("what", *_TIMES, *_energy_columns(document))
    lines += ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(document)]
    compared = [f"- {one.second} against {one.first}: {one.sentence}" for one in within(document)]
    lines += ["", *compared] if compared else []
    notes = list(notes_on(document))
    return "\n".join(lines + ([""] if notes else []) + [f"- {note}" for note in notes])


def comparison_table(comparisons: list[Comparison]) -> Table:
    """One row a pair."""
    shown = Table(Column("first", no_wrap=True), Column("second", no_wrap=True), "the second is")
    for one in comparisons:
        colour = COLOURS.get(one.verdict, "default")
        shown.add_row(escape(one.first), escape(one.second), f"[{colour}]{escape(one.sentence)}[/]")
    return shown


def notes_on(document: Document) -> Iterator[str]:
    """What a reader must know before believing a figure."""
    if not document.complete:
        yield "interrupted: figures are of the windows finished by then"
    if document.baseline is not None and document.baseline.note:
        yield document.baseline.note
    for subject in document.subjects:
        if subject.warm_up.calls and not subject.warm_up.steady:
            seconds = subject.warm_up.seconds
            yield f"{subject.label}: the median still moved by more than 2 % after {seconds:.0f} s of warm-up"
        rejected = [window.rejected for window in subject.windows if window.rejected]
        if rejected:
            yield f"{subject.label}: {len(rejected)} of {len(subject.windows)} windows do not count: {rejected[0]}"
        if subject.latency is not None and _waited(document, subject.latency) > MUCH_WAITING:
            share = _waited(document, subject.latency)
            yield f"{subject.label}: {share:.0%} of its time it waited for a processor: something else was at work"
        if subject.energy is not None and subject.energy.note:
            yield f"{subject.label}: {subject.energy.note}"


def _waited(document: Document, latency: Latency) -> float:
    """Share of the median call without a processor; on several threads not known, since these may overlap."""
    return 0.0 if document.plan.threads > 1 else 1 - latency.cpu_p50_ms / max(latency.p50_ms, latency.cpu_p50_ms, 1e-6)


def _title(document: Document) -> str:
    threads = document.plan.threads
    return f"{document.conditions.board}, {threads} thread{'s' if threads > 1 else ''}, {document.when[:16]}Z"


def _rows(document: Document) -> Iterator[tuple[str, ...]]:
    columns = _energy_columns(document).values()
    for subject in document.subjects:
        energies = (None if subject.energy is None else figure(subject.energy) for figure in columns)
        yield (subject.label, *_times(subject), *map(_number, energies))


def _times(subject: Measured) -> Iterator[str]:
    latency = subject.latency
    if latency is None:
        return repeat(_number(None), len(_TIMES))
    return map(_number, (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms, latency.cpu_p50_ms))


def _energy_columns(document: Document) -> dict[str, Callable[[CallEnergy], float | None]]:
    """What is measured and what is modelled never stand in one column."""
    sources = {subject.energy.source for subject in document.subjects if subject.energy is not None}
    columns: dict[str, Callable[[CallEnergy], float | None]] = {}
    if EnergySource.MEASURED in sources:
        name = f"measured:{document.meter.name}"
        columns[f"mJ net, {name}"] = lambda energy: _if(energy, EnergySource.MEASURED, energy.net_mj)
        columns[f"mJ gross, {name}"] = lambda energy: _if(energy, EnergySource.MEASURED, energy.gross_mj)
    if EnergySource.MODELLED in sources:
        columns["mJ, modelled"] = lambda energy: _if(energy, EnergySource.MODELLED, energy.net_mj)
    return columns


def _if(energy: CallEnergy, source: EnergySource, value: float | None) -> float | None:
    return value if energy.source is source else None


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _conditions(document: Document) -> Iterator[str]:
    told = document.conditions
    plan = document.plan
    yield (
        f"{plan.windows} windows of {plan.window_s:g} s each in random order, after warm-up; times in ms and energy in"
        " mJ of one call; ratios are times of the first over those of the second, with 95 % interval"
    )
    yield f"{told.machine}, {told.cores} cores, {told.kernel}, governor {told.governor or 'unknown'}, nice {told.nice}"
    yield ", ".join(f"{name} {value}" for name, value in told.versions.items())
    yield f"before: {_moment(told.before)}; after: {_moment(told.after)}"
    if document.baseline is not None and document.baseline.idle_mw is not None:
        yield f"idle power {document.baseline.idle_mw:.0f} mW, subtracted in net"
    for subject in document.subjects:
        facts = subject.facts
        digest = f", SHA-256 {facts.digest[:12]}" if facts.digest else ""
        accuracy = f", {facts.accuracy:.2%} right" if facts.accuracy is not None else ""
        yield f"{subject.label}: {facts.architecture}{digest}{accuracy}"


def _moment(at: Moment) -> str:
    throttling = "unknown" if at.throttling is None else ", ".join(at.throttling.active) or "no"
    known = (
        ("", at.temperature_c, " °C"),
        ("", at.frequency_mhz, " MHz"),
        ("load ", at.load_1min, ""),
    )
    facts = [f"{name}{value:.4g}{unit}" for name, value, unit in known if value is not None]
    return ", ".join([*facts, f"throttled: {throttling}"])
