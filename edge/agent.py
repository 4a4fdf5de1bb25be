"""The day of a device: one thread owns the state, one does the long work, and the link has its own.

Everything that happens arrives in one inbox: messages of the aggregator, the end of a step of work, progress of the
trainer. Each is handled to its end before the next, and then `_advance` asks what can be done now. So a state is only
ever left by this thread, through the journal, which is on disk before anything follows from it.

After a restart an update in the outbox is uploaded and never trained again, and an offer in the journal is taken up
again unless its round is over.
"""

import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from edge.birth import describe
from edge.courier import Courier, Revoked
from edge.downloads import DownloadError
from edge.duty import Duty
from edge.gates import first_closed
from edge.lifecycle import GATED, Lifecycle
from edge.link import Link
from edge.measure.history import costs_for_birth
from edge.session import InferenceFailed, ModelRefused
from edge.stage import Finished, Parts, Stage
from edge.telemetry import Reporter
from edge.training.task import Progress
from protocol.errors import RemoteProtocolError
from protocol.messages import Birth, Cost, Message, ModelOffer, Need, Offer, Receipt, RoundState, ServerState, Status

log = logging.getLogger(__name__)

TICK_S: Final = 0.2
GATES_EVERY_S: Final = 5.0
STUMBLE_S: Final = 10.0
"""How long to wait for a full disk to be emptied before the journal is tried again."""


@dataclass(frozen=True, slots=True)
class _Up:
    """The link has just connected."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """The program is to end."""


@dataclass(frozen=True, slots=True)
class _ShutOut:
    """The aggregator says that the device is no member any more."""

    reason: str


_Event = Message | Progress | Finished | _Up | _Stop | _ShutOut


class Agent:
    """One device at work.

    Args:
        parts: what it is made of.
        clock: wall-clock seconds, asked only about time that passes while the agent is down.
        monotonic: seconds that never jump, for everything else.
        rng: for jitter.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._parts, self._journal, self._monotonic = parts, parts.journal, monotonic
        rng = rng or random.Random()
        # put() of a SimpleQueue may be called from a signal handler; that of a Queue may deadlock there.
        self._inbox: SimpleQueue[_Event] = SimpleQueue()
        self._link = self._make_link(rng)
        self._reporter = Reporter(parts.journal, parts.installer, parts.workshop.downloads, self._link, monotonic)
        self._stage = Stage(parts, self._link, self._reporter, self._inbox.put)
        self._courier = Courier(self._stage, rng)
        self._duty = Duty(self._stage, self._courier, clock, monotonic)
        self._wanted: ModelOffer | None = None
        self._picked_up = False
        self._pick_up_due_s = self._gates_due_s = monotonic()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            Revoked: the aggregator has shut this device out.
        """
        with ExitStack() as stack:
            stack.enter_context(self._link)
            stack.enter_context(
                self._parts.renewal.watching(
                    lambda: self._link.turned_away, lambda reason: self._inbox.put(_ShutOut(reason))
                )
            )
            stack.callback(self._stage.close)
            while not isinstance(event := self._next_event(), _Stop):
                self._guarded(event)

    def stop(self) -> None:
        """End `run` soon: offline is said, the trainer ends, work is kept for the next start. For any thread."""
        self._inbox.put(_Stop())

    def _next_event(self) -> _Event | None:
        try:
            return self._inbox.get(timeout=TICK_S)
        except Empty:
            return None

    def _guarded(self, event: _Event | None) -> None:
        """Handle and advance; where the disk refuses, wait and go on from what is on it."""
        try:
            if event is not None:
                self._handle(event)
            self._advance()
        except OSError as error:
            log.error("device %s: %s; waiting for the disk", self._parts.device, error)  # noqa: TRY400 (says it all)
            self._picked_up, self._pick_up_due_s = False, self._monotonic() + STUMBLE_S

    def _handle(self, event: _Event) -> None:
        match event:
            case Offer():
                self._duty.on_offer(event)
            case RoundState():
                self._duty.on_round(event)
            case ModelOffer():
                self._wanted = event
            case Need():
                self._courier.on_need(event)
            case Receipt():
                self._courier.on_receipt(event)
            case ServerState(online=online):
                self._courier.server_online = online
                self._courier.hurry()
            case _Up():
                self._courier.hurry()
            case _ShutOut(reason):
                self._stage.move(Lifecycle.REVOKED)
                raise Revoked(f"device {self._parts.device}: shut out by its aggregator ({reason})")
            case Progress(fraction=fraction):
                self._reporter.progress = fraction
            case Finished():
                self._stage.finish(event)

    def _advance(self) -> None:
        if not self._stage.busy:
            self._pick_up()
            if self._picked_up:
                self._check_gates()
                self._next_step()
            if not self._stage.busy:
                self._parts.workshop.trainer.rest()
        self._reporter.report()

    def _pick_up(self) -> None:
        """Go on from what is on the disk, after a start or a full disk."""
        if self._picked_up or self._monotonic() < self._pick_up_due_s:
            return
        if self._stage.lifecycle not in {Lifecycle.IDLE, *GATED}:
            self._stage.move(Lifecycle.IDLE)
        self._courier.forget()
        self._duty.pick_up()
        self._picked_up = True

    def _next_step(self) -> None:
        match self._stage.lifecycle:
            case Lifecycle.IDLE:
                self._begin()
            case Lifecycle.UPLOADING | Lifecycle.AWAIT_RECEIPT:
                self._courier.advance()

    def _begin(self) -> None:
        """Idle: what is owed comes first, then the model, then new work."""
        if (entry := self._courier.owed()) is not None:
            self._courier.start(entry)
        elif self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self._install(wanted)
        elif self._duty.ready:
            self._duty.start()

    def _install(self, offer: ModelOffer) -> None:
        installer = self._parts.installer
        if offer.digest != installer.digest:
            self._stage.move(Lifecycle.DOWNLOADING)
            self._stage.step(lambda: installer.install(offer), lambda future: self._on_installed(offer, future))

    def _on_installed(self, offer: ModelOffer, future: Future[Cost]) -> None:
        device = self._parts.device
        try:
            cost = future.result()
        except (DownloadError, InferenceFailed, ModelRefused, RemoteProtocolError, OSError) as error:
            log.warning("device %s: model version %d not installed: %s", device, offer.version, error)
            self._reporter.note = str(error)
            self._stage.move(Lifecycle.IDLE)
            return
        log.info("device %s: runs model version %d at %s: %s", device, offer.version, offer.precision, offer.reason)
        others = (known for known in self._journal.record.costs if known.precision != cost.precision)
        self._stage.move(Lifecycle.IDLE, costs=(*others, cost))
        self._stage.announce()

    def _check_gates(self) -> None:
        """Open and close for work; an agent at work finishes first."""
        now_s, old = self._monotonic(), self._stage.lifecycle
        if now_s < self._gates_due_s or old not in {Lifecycle.IDLE, *GATED}:
            return
        self._gates_due_s = now_s + GATES_EVERY_S
        closed = first_closed(self._parts.gates)
        new = Lifecycle.IDLE if closed is None else closed.state
        if new is old:
            return
        self._reporter.note = "" if closed is None else closed.detail
        if old is not Lifecycle.IDLE:
            self._stage.move(Lifecycle.IDLE)
        if new is not Lifecycle.IDLE:
            self._stage.move(new)
        self._stage.announce()

    def _make_link(self, rng: random.Random) -> Link:
        parts = self._parts
        return Link(
            parts.address,
            parts.device,
            parts.topics,
            parts.seal,
            next_session=parts.journal.next_session,
            birth=self._birth,
            status=lambda: GATED.get(parts.journal.record.lifecycle, Status.ONLINE),
            on_up=lambda: self._inbox.put(_Up()),
            on_message=self._inbox.put,
            on_piece=parts.workshop.broadcasts.hear,
            precision=parts.journal.record.precision,
            max_backoff_s=parts.config.max_backoff_s,
            context=parts.context,
            rng=rng,
        )

    def _birth(self, session: int) -> Birth:
        record, slot = self._journal.record, self._parts.installer.runtime.current
        architecture = record.architecture if slot is None else slot.network.spec
        return describe(
            self._parts.config,
            self._parts.workshop.meter.description,
            session=session,
            samples=self._parts.samples,
            model_digest=self._parts.installer.digest,
            costs=costs_for_birth(self._parts.config.state_dir, record.costs, architecture),
            packet_bytes=self._link.packet_bytes,
        )
