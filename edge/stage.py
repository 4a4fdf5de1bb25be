"""What every part of an agent's day works with: where it stands, its line to the fleet, and one pair of hands.

Work of any length (download, train, encode, send) is a step: it runs on the one worker thread, and what follows runs
in the agent's own thread when the step has ended.
"""

import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from edge.config import Config
from edge.gates import Gate
from edge.installer import Installer
from edge.lifecycle import Lifecycle
from edge.link import Link
from edge.mqtt import Address, LinkError
from edge.renewal import Renewal
from edge.sealing import Seal
from edge.state import Journal
from edge.telemetry import Reporter
from edge.work import Workshop
from protocol.topics import Topics

_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Parts:
    """What an agent is made of; `assembly` puts it together.

    Attributes:
        device: the name it is a member under.
        config: for what it says of itself.
        topics: of its fleet.
        address: of the broker.
        context: for TLS to it.
        renewal: of the device's certificate.
        samples: pictures it can train on.
        journal, seal, workshop, installer, gates: see their files.
    """

    device: str
    config: Config
    topics: Topics
    address: Address
    context: Callable[[], ssl.SSLContext | None]
    renewal: Renewal
    samples: int
    journal: Journal
    seal: Seal
    workshop: Workshop
    installer: Installer
    gates: Sequence[Gate]


@dataclass(frozen=True, slots=True)
class Finished:
    """A step has ended, well or not: `then(future)` is to be called in the agent's thread."""

    then: Callable[[Future[Any]], None]
    future: Future[Any]


class Stage:
    """The shared means of one agent. For its own thread, except where said.

    Args:
        parts: what the agent is made of.
        link: its line to the fleet.
        reporter: says how far it is.
        post: puts an event into the agent's inbox, from any thread.
    """

    def __init__(self, parts: Parts, link: Link, reporter: Reporter, post: Callable[[Any], None]) -> None:
        self.parts, self.link, self.reporter, self.post = parts, link, reporter, post
        self.journal = parts.journal
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="work")
        self._step: Future[Any] | None = None

    @property
    def lifecycle(self) -> Lifecycle:
        """Where the agent stands."""
        return self.journal.record.lifecycle

    @property
    def busy(self) -> bool:
        """Whether a step is running or has just ended."""
        return self._step is not None

    def move(self, new: Lifecycle, **values: Any) -> None:
        """Move the lifecycle and other fields of the journal, on disk when this returns.

        Raises:
            OSError: the disk refused; nothing moved.
        """
        self.reporter.progress = 0.0
        sent_bytes, received_bytes = self.reporter.byte_counts()
        self.journal.move(new, sent_bytes=sent_bytes, received_bytes=received_bytes, **values)

    def announce(self) -> None:
        """Say birth and state again, if there is a connection; the next one says them anyway."""
        with suppress(LinkError):
            self.link.announce()

    def step(self, work: Callable[[], Any], then: Callable[[Future[Any]], None]) -> None:
        """Begin a step; only when not busy."""
        assert self._step is None
        self._step = self._worker.submit(work)
        self._step.add_done_callback(lambda future: self.post(Finished(then, future)))

    def finish(self, finished: Finished) -> None:
        """Take a step's end from the inbox."""
        self._step = None
        finished.then(finished.future)

    def close(self) -> None:
        """Break off the step under way; the journal says where to go on."""
        workshop = self.parts.workshop
        workshop.downloads.stop.set()
        while self._step is not None and not self._step.done():
            workshop.trainer.stop()  # again and again: the step may be just about to start one
            wait([self._step], timeout=_POLL_S)
        workshop.trainer.stop()
        self._worker.shutdown()
