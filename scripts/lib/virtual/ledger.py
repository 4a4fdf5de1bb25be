"""What virtual devices saw, a line of JSON an event, for the accountant to compare with the aggregator's books."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from protocol.messages import Manifest, Offer, Receipt


class Ledger:
    """A file of events; times are wall-clock seconds."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1 << 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def offered(self, device: str, offer: Offer) -> None:
        """A device has an offer."""
        self._write("offer", device, offer.task, offer.round)

    def sent(self, device: str, manifest: Manifest) -> None:
        """A device says what it uploads, for the first time or again."""
        self._write("sent", device, manifest.task, manifest.round, manifest.digest.hex(), manifest.samples)

    def receipted(self, device: str, receipt: Receipt) -> None:
        """A device has the final word on an update."""
        refusal = [receipt.refusal, receipt.reason]
        self._write(
            "receipt", device, receipt.task, receipt.round, receipt.digest.hex(), receipt.outcome.value, *refusal
        )

    def moved(self, device: str, how: str) -> None:
        """A device vanished (`cut`, `silent`) or is back (`back`)."""
        self._write(how, device)

    def _write(self, *fields: Any) -> None:
        self._file.write(json.dumps([round(time.time(), 4), *fields]) + "\n")


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a ledger; `fields` as the method above writes them."""

    at_s: float
    kind: str
    device: str
    fields: tuple[Any, ...]


def read(paths: Iterable[Path]) -> list[Event]:
    """Every event of several ledgers, by time."""
    events = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            at_s, kind, device, *fields = json.loads(line)
            events.append(Event(at_s, kind, device, tuple(fields)))
    return sorted(events, key=lambda event: event.at_s)
