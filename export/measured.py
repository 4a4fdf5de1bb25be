"""What `bitfleet-edge measure --json` wrote, read as data: the exporter does not know the agent.

Of the document (`edge/measure/schema.json`) only inferences count, and of those what one picture takes.
"""

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from export.errors import ExportError
from protocol import networks
from protocol.architecture import Architecture
from protocol.errors import RemoteProtocolError
from protocol.precision import Precision

SCHEMA: Final = "bitfleet/measure/1"
MEASURED: Final = "measured"
"""How a document names energy that is no model's."""
MAX_FIGURE: Final = 1e15
"""Beyond every device: 30 000 years, or what a power station gives in minutes."""
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model file on one device.

    Attributes:
        label: what the document calls it.
        architecture: its network.
        precision: at this precision.
        batch: pictures in one call.
        latency_ms: median for one picture, None where no window counted.
        energy_mj: all that the device took for one picture, None where no meter resolved it.
    """

    label: str
    architecture: Architecture
    precision: Precision
    batch: int
    latency_ms: float | None
    energy_mj: float | None


def read_measured(text: str | bytes) -> tuple[Measurement, ...]:
    """The inferences of a document.

    Raises:
        ExportError: it is no such document.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"no JSON ({error}): expected what bitfleet-edge measure --json writes") from error
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise ExportError(f"schema is {str(found)[:80]!r}: expected {SCHEMA!r}, as bitfleet-edge measure --json writes")
    subjects = _take(document, "subjects", list, "")
    read = [_subject(subject, f"subjects[{number}]") for number, subject in enumerate(subjects)]
    return tuple(each for each in read if each is not None)


def _subject(subject: Any, place: str) -> Measurement | None:
    facts = _take(subject, "facts", dict, place)
    if _take(facts, "kind", str, f"{place}.facts") != "inference":
        return None
    batch = _take(facts, "batch", int, f"{place}.facts")
    if not 1 <= batch <= 1 << 20:
        raise ExportError(f"{place}.facts.batch is {str(batch)[:80]}: expected a number of pictures")
    names = [_take(facts, name, str, f"{place}.facts") for name in ("architecture", "precision")]
    try:
        architecture, precision = networks.parse(names[0]), Precision.parse(names[1])
    except RemoteProtocolError as error:
        raise ExportError(f"{place}.facts: {error}") from error
    latency, energy = (_take(subject, name, dict | None, place) for name in ("latency", "energy"))
    latency_ms = None if latency is None else _number(latency, "p50_ms", f"{place}.latency")
    counts = energy is not None and energy.get("source") == MEASURED
    energy_mj = _number(energy, "gross_mj", f"{place}.energy") if counts else None
    label = _take(subject, "label", str, place)
    return Measurement(
        label,
        architecture,
        precision,
        batch,
        None if latency_ms is None else latency_ms / batch,
        None if energy_mj is None else energy_mj / batch,
    )


def _take(holder: Any, name: str, kind: Any, place: str) -> Any:
    value = holder.get(name, _MISSING) if isinstance(holder, dict) else _MISSING
    if value is _MISSING or isinstance(value, bool) or not isinstance(value, kind):
        found = "missing" if value is _MISSING else repr(value)[:80]
        raise ExportError(f"{place}.{name}".lstrip(".") + f" is {found}: expected {getattr(kind, '__name__', kind)}")
    return value


def _number(holder: Any, name: str, place: str) -> float | None:
    value = _take(holder, name, int | float | None, place)
    if value is None:
        return None
    if not 0 <= value <= MAX_FIGURE or not isfinite(value):
        raise ExportError(f"{place}.{name} is {str(value)[:80]}: expected a number from 0 to {MAX_FIGURE:g}")
    return float(value)
