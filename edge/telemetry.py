"""How far the device is, said at most once a second and at least twice a minute; at QoS 0, since it is soon stale."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from edge.downloads import Downloads
from edge.installer import Installer
from edge.link import Link
from edge.mqtt import LinkError
from edge.state import Journal
from protocol.messages import Telemetry

EVERY_S: Final = 1.0
HEARTBEAT_S: Final = 30.0
MAX_NOTE: Final = 400
_NEVER_S: Final = float("-inf")


class Reporter:
    """Says telemetry when something has changed.

    Attributes:
        progress: of the step in hand, 0 to 1.
        note: the last thing a person should know, empty for none.
    """

    def __init__(
        self,
        journal: Journal,
        installer: Installer,
        downloads: Downloads,
        link: Link,
        monotonic: Callable[[], float],
    ) -> None:
        self._journal, self._installer = journal, installer
        self._downloads, self._link, self._monotonic = downloads, link, monotonic
        self._before = journal.record.sent_bytes, journal.record.received_bytes
        self._said: Telemetry | None = None
        self._said_at_s = _NEVER_S
        self.progress = 0.0
        self.note = ""

    def byte_counts(self) -> tuple[int, int]:
        """Bytes sent and received since the device joined."""
        sent, received = self._before
        return sent + self._link.sent_bytes, received + self._link.received_bytes + self._downloads.received_bytes

    def report(self) -> None:
        """Say it if it is time."""
        since_s = self._monotonic() - self._said_at_s
        if since_s < EVERY_S or not self._link.connected:
            return
        telemetry = self._telemetry()
        if since_s < HEARTBEAT_S and self._said is not None and _same(telemetry, self._said):
            return
        with suppress(LinkError):
            self._link.report(telemetry)
        self._said, self._said_at_s = telemetry, self._monotonic()

    def _telemetry(self) -> Telemetry:
        record, slot = self._journal.record, self._installer.runtime.current
        sent_bytes, received_bytes = self.byte_counts()
        latencies = [cost.latency_ms for cost in record.costs if slot is not None and cost.precision == slot.precision]
        return Telemetry(
            lifecycle=record.lifecycle,
            task=record.task.offer.task if record.task is not None else "",
            progress=self.progress,
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
            model_version=self._installer.version,
            latency_p50_ms=latencies[0] if latencies else 0.0,
            note=self.note[:MAX_NOTE],
        )


def _same(one: Telemetry, other: Telemetry) -> bool:
    """Whether nothing changed but the byte counts, which telemetry itself moves."""
    return replace(one, sent_bytes=0, received_bytes=0) == replace(other, sent_bytes=0, received_bytes=0)
