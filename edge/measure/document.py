"""The document of one run, in memory and as JSON. `schema.json` beside this file describes it to everybody else."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.files import write_atomic
from edge.measure.conditions import Conditions
from edge.measure.energy import Baseline, CallEnergy
from edge.measure.latency import Latency, WarmUp
from edge.measure.plain import PlainError, from_plain
from edge.measure.subject import Facts
from edge.meters.base import Description
from protocol.messages import EnergySource

SCHEMA: Final = "bitfleet/measure/1"
SCHEMA_FILE: Final = Path(__file__).with_name("schema.json")


class DocumentError(ValueError):
    """A file is no document of a measurement; the message names file, place, value and expectation."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How it was measured.

    Attributes:
        windows: of each subject, five or more for an interval worth the name.
        window_s: length of each.
        warm_up_s: after this long a subject counts as warm although its median still moves.
        baseline_s: of idle power, before and after; only where there is a sensor.
        threads: that compute.
        seed: of the order of the subjects, which every turn draws anew.
    """

    windows: int = 10
    window_s: float = 3.0
    warm_up_s: float = 20.0
    baseline_s: float = 60.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        bounds = {
            "windows": (self.windows, 1, 10_000),
            "seconds": (self.window_s, 0.01, 3600),
            "threads": (self.threads, 1, 1024),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise DocumentError(f"--{name} {value}: expected {low} to {high}")


@dataclass(frozen=True, slots=True)
class Window:
    """One subject's part of one turn.

    Attributes:
        turn: from 0; windows of the same turn lie side by side in time.
        calls: made in it.
        wall_s: its length.
        p50_ms: median of elapsed time; cpu_p50_ms of processor time.
        gross_mj: energy of the whole window, by `source`.
        rejected: why it does not count, empty if it does.
    """

    turn: int
    calls: int
    wall_s: float
    p50_ms: float
    cpu_p50_ms: float
    gross_mj: float
    source: EnergySource
    rejected: str

    def __post_init__(self) -> None:
        for name in ("p50_ms", "cpu_p50_ms"):
            if getattr(self, name) < 0:
                raise DocumentError(f"{name} {getattr(self, name)}: expected no time below 0")


@dataclass(frozen=True, slots=True)
class Measured:
    """One subject.

    Attributes:
        label: unique in the document.
        facts: what it is.
        load_ms: from file to session, or from nothing to a trainer.
        first_call_ms: which is slower than all that follow.
        warm_up: what came before.
        latency: over all windows that count, None where none does; energy likewise.
        windows: all, in order.
    """

    label: str
    facts: Facts
    load_ms: float
    first_call_ms: float
    warm_up: WarmUp
    latency: Latency | None
    energy: CallEnergy | None
    windows: tuple[Window, ...]

    @property
    def counted(self) -> tuple[Window, ...]:
        """The windows that count."""
        return tuple(window for window in self.windows if not window.rejected)


@dataclass(frozen=True, slots=True)
class Document:
    """One run.

    Attributes:
        schema: names this form.
        when: of its beginning, ISO 8601 in UTC.
        complete: False where it was interrupted; what is there was measured nevertheless.
        plan: how.
        conditions: under which.
        meter: by which energy was measured.
        baseline: idle power, None where the meter is a model.
        yardstick_ms: median of each turn of a piece of work that is the same in every run and on every machine.
        subjects: what was measured; the first is what the others are compared with.
    """

    schema: str
    when: str
    complete: bool
    plan: Plan
    conditions: Conditions
    meter: Description
    baseline: Baseline | None
    yardstick_ms: tuple[float, ...]
    subjects: tuple[Measured, ...]


def write_document(path: Path, document: Document) -> None:
    """Write it; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(path, json.dumps(asdict(document), indent=1, ensure_ascii=False).encode() + b"\n", mode=0o644)


def read_document(path: Path) -> Document:
    """Read one back.

    Raises:
        DocumentError: it is not there, no JSON, of another schema, or a value is not what it should be.
    """
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}; expected a file that measure --json wrote") from error
    except ValueError as error:
        raise DocumentError(f"{path}: no JSON ({error}); expected a file that measure --json wrote") from error
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema != SCHEMA:
        raise DocumentError(f"{path}: schema {schema!r}, expected {SCHEMA!r}")
    try:
        return from_plain(Document, plain)
    except PlainError as error:
        raise DocumentError(f"{path}: {error}") from error
