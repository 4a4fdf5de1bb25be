"""What this device measured of itself, kept in its state folder: the next birth carries it, unless it cannot be right.

A figure that differs from the device's own past by a factor of ten is flagged and not believed: a board that was asked
while another program held it, a meter that fell off its bus. It is believed once a second measurement agrees, since
then it is the board that has changed, or when a person says so.

The journal belongs to the agent, which may be running; this file belongs to `bitfleet-edge measure`, and agents only
read it.
"""

import fcntl
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from edge.files import set_aside, write_atomic
from edge.measure.document import Document, Measured
from edge.measure.plain import from_plain
from edge.measure.subject import Kind
from protocol.messages import Cost, EnergySource

HISTORY_FILE: Final = "measured.json"
SCHEMA: Final = "bitfleet/measured/1"
IMPLAUSIBLE: Final = 10.0
"""Between a figure and the device's past: no governor, no heat and no neighbour on a board explains that."""
AGREES: Final = 2.0
"""Two measurements of the same within this factor confirm each other."""
KEPT: Final = 200
"""Entries; older ones go. A few kilobytes, and years of measuring by hand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One precision of one network, measured once.

    Attributes:
        when: ISO 8601 in UTC.
        architecture: spec of the network; precision likewise.
        latency_ms: median of one picture on one thread.
        energy_mj: of one picture, net of the idle device where a meter resolved it.
        source: how the energy was obtained.
        flag: why it is not believed, empty if it is.
    """

    when: str
    architecture: str
    precision: str
    latency_ms: float
    energy_mj: float
    source: EnergySource
    flag: str = ""

    @property
    def cost(self) -> Cost:
        """As a birth carries it."""
        return Cost(self.precision, self.latency_ms, self.energy_mj, self.source)


@dataclass(frozen=True, slots=True)
class _File:
    schema: str
    entries: tuple[Entry, ...]


def entries_of(document: Document, threads: int = 1) -> Iterator[Entry]:
    """What a run says of single pictures through model files, as the agent runs them: batch 1, on its `threads`.

    Where the meter did not resolve a call, its energy is the modelled one and says so. Of a model that was measured
    twice, the first.
    """
    seen = set()
    for subject in document.subjects:
        facts, latency = subject.facts, subject.latency
        if facts.kind is not Kind.INFERENCE or facts.batch != 1 or document.plan.threads != threads or latency is None:
            continue
        if (facts.architecture, facts.precision) in seen:
            continue
        seen.add((facts.architecture, facts.precision))
        energy_mj, source = _energy(subject)
        yield Entry(document.when, facts.architecture, facts.precision, latency.p50_ms, energy_mj, source)


def oddity(entry: Entry, past: Sequence[Entry]) -> str:
    """Why an entry cannot be right by the device's past, empty where it can."""
    trusted = [old for old in past if _key(old) == _key(entry) and not old.flag]
    comparable = [old for old in trusted if old.source is entry.source]
    latency = _odd("latency", "ms", entry.latency_ms, [old.latency_ms for old in trusted])
    energy = _odd("energy", "mJ", entry.energy_mj, [old.energy_mj for old in comparable])
    return "; ".join(filter(None, (latency, energy)))


def confirmed(entry: Entry, past: Sequence[Entry]) -> bool:
    """Whether the last measurement of the same was flagged and says the same."""
    same = [old for old in past if _key(old) == _key(entry)]
    return bool(same) and bool(same[-1].flag) and _agree(same[-1], entry)


def remember(state: Path, new: Iterable[Entry], *, believe: bool = False) -> list[Entry]:
    """Judge the entries of one run by the device's past and keep them.

    Args:
        state: the state folder.
        new: at most one of each precision and network.
        believe: a person says that they are right.

    Returns:
        The entries as kept, flagged or not.

    Raises:
        OSError: the folder cannot be written.
    """
    path, made = state / HISTORY_FILE, []
    with _alone(state):
        past = _load(path)
        if past is None:
            set_aside(path)
            past = []
        for entry in new:
            reason = oddity(entry, past)
            if reason and not believe and not confirmed(entry, past):
                made.append(replace(entry, flag=reason))
                continue
            if reason:  # the board is another one since: what it was before says nothing of it
                past = [old for old in past if _key(old) != _key(entry)]
            made.append(entry)
        plain = asdict(_File(SCHEMA, (*past, *made)[-KEPT:]))
        write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False).encode() + b"\n")
    return made


def read_history(state: Path) -> list[Entry]:
    """Every entry, oldest first; none where there is no file, or one that cannot be read: it can be measured again."""
    return _load(state / HISTORY_FILE) or []


def costs_for_birth(state: Path, installed: Sequence[Cost], architecture: str) -> tuple[Cost, ...]:
    """What the device says of its costs.

    Args:
        state: the state folder.
        installed: measured shortly after each installation.
        architecture: spec of the network the device runs now.

    Returns:
        For every precision the newest believed measurement with this network, else what was found at installation.
    """
    measured = {
        entry.precision: entry.cost
        for entry in read_history(state)
        if entry.architecture == architecture and not entry.flag
    }
    return tuple(({cost.precision: cost for cost in installed} | measured).values())


def _energy(subject: Measured) -> tuple[float, EnergySource]:
    energy = subject.energy
    if energy is None or energy.net_mj is None or energy.net_mj < 0:
        return subject.facts.modelled_mj, EnergySource.MODELLED
    return energy.net_mj, energy.source


def _odd(name: str, unit: str, found: float, known: Sequence[float]) -> str:
    if not known:
        return ""
    usual = median(known)
    if usual <= found * IMPLAUSIBLE and found <= usual * IMPLAUSIBLE:
        return ""
    return f"{name} {found:.3g} {unit}, where this device's own history says {usual:.3g} {unit}"


def _agree(a: Entry, b: Entry) -> bool:
    pairs = [(a.latency_ms, b.latency_ms)]
    if a.source is b.source:
        pairs.append((a.energy_mj, b.energy_mj))
    return all(max(pair) <= AGREES * min(pair) for pair in pairs)


def _key(entry: Entry) -> tuple[str, str]:
    return entry.architecture, entry.precision


def _load(path: Path) -> list[Entry] | None:
    """The entries of a file, None where it is damaged."""
    if not path.exists():
        return []
    try:
        return list(from_plain(_File, json.loads(path.read_bytes())).entries)
    except ValueError:
        return None


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Between two measuring commands; the second waits for the first to have written."""
    with (state / f"{HISTORY_FILE}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
