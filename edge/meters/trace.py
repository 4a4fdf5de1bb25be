"""What a board's meter said, kept as lines of JSON: recorded once, replayed in tests for ever.

The first line is the header, each other a sample: `{"t_s": 0.2, "mw": 5321.0}`, or `{"t_s": 0.3, "error": "…"}` where
the sensor failed. Times are seconds since the first question and grow.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.meters.base import Accuracy, Description, MeterError

VERSION: Final = 1
UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""All that reading fields out of any JSON at all may raise."""


@dataclass(frozen=True, slots=True)
class Header:
    """Where a trace comes from.

    Attributes:
        meter: description of the meter that was recorded.
        max_mw: what its samples may be at most.
        board: as it calls itself.
        recorded: when, as ISO 8601; or "by hand" for a trace that no board said.
        versions: of kernel, bitfleet and whatever else matters.
        note: what a reader should know.
    """

    meter: Description
    max_mw: float
    board: str
    recorded: str
    versions: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was said at `t_s`: a power in milliwatts, or why there is none."""

    t_s: float
    mw: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording."""

    header: Header
    samples: tuple[Sample, ...]


def to_lines(header: Header, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of a trace, without their ends."""
    yield json.dumps({"bitfleet_trace": VERSION, **asdict(header)}, ensure_ascii=False)
    for sample in samples:
        said = {"error": sample.error} if sample.mw is None else {"mw": sample.mw}
        yield json.dumps({"t_s": sample.t_s, **said}, ensure_ascii=False)


def read_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        MeterError: it is none; the message names file, line and what was expected.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MeterError(f"trace {path}: {error}") from error
    if not lines:
        raise MeterError(f"trace {path}: empty, expected a header and samples")
    try:
        header = _header(json.loads(lines[0]))
    except UNREADABLE as error:
        raise MeterError(f"trace {path}, header: {error!r}; expected what scripts/record_meter writes") from error
    samples: list[Sample] = []
    try:
        for line in lines[1:]:
            samples.append(_sample(json.loads(line), samples[-1].t_s if samples else -math.inf))
    except UNREADABLE as error:
        raise MeterError(
            f"trace {path}, sample {len(samples) + 1}: {error!r}; expected what scripts/record_meter writes"
        ) from error
    if not samples:
        raise MeterError(f"trace {path}: no samples, expected at least one")
    return Trace(header, tuple(samples))


def _header(values: dict[str, Any]) -> Header:
    values = dict(values)
    if (version := values.pop("bitfleet_trace")) != VERSION:
        raise ValueError(f"version {version!r}, expected {VERSION}")
    meter = dict(values.pop("meter"))
    meter["accuracy"] = Accuracy(meter["accuracy"])
    header = Header(Description(**meter), **values)
    for name, value in (("rate_hz", header.meter.rate_hz), ("max_mw", header.max_mw)):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} {value!r}, expected a number above 0")
    return header


def _sample(values: dict[str, Any], before_s: float) -> Sample:
    t_s = float(values["t_s"])
    if not before_s <= t_s < math.inf:
        raise ValueError(f"t_s {t_s:g} after {before_s:g}, expected times that grow")
    if "mw" in values:
        return Sample(t_s, float(values["mw"]))
    return Sample(t_s, error=str(values["error"]))
