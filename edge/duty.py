"""From an offer to an update in the outbox: IDLE → DOWNLOADING → TRAINING → ENCODING → UPLOADING.

One task at a time. An accepted offer is in the journal until its update is in the outbox, so that a restart takes it
up again; one that failed is declined with the reason.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

from edge.courier import Courier
from edge.downloads import DownloadError
from edge.gates import first_closed
from edge.lifecycle import Lifecycle
from edge.mqtt import LinkError
from edge.outbox import Entry, OutboxFull
from edge.stage import Stage
from edge.state import Task
from edge.training.task import TrainerError
from edge.work import Refusal, Trained
from protocol.errors import LocalProtocolError
from protocol.messages import Decline, DeclineReason, Offer, RoundState
from protocol.topics import check_name

log = logging.getLogger(__name__)
T = TypeVar("T")

HEARSAY_S: Final = 10.0
"""How long an offer from before a restart waits for word of its round; without a link it is taken up anyway."""
OVERDUE_S: Final = 60.0
"""An offer from before a restart is too old this long after twice its deadline: rounds are extended once."""
ACCEPTING: Final = frozenset({"planned", "offered", "collecting", "extended", "starved"})
"""Phases of a round in which an update still counts."""
MAX_DETAIL: Final = 400
"""Characters of a reason on the wire."""

RETRY_AFTER_S: Final = {
    DeclineReason.BUSY: 10.0,
    DeclineReason.DOWNLOAD_FAILED: 60.0,
    DeclineReason.NO_SPACE: 600.0,
    DeclineReason.TRAINING_FAILED: 600.0,
    DeclineReason.NO_DATA: 3600.0,
    DeclineReason.NO_TRAINER: 3600.0,
    DeclineReason.UNSUPPORTED: 3600.0,
}
"""By reason: what passes by itself soon, what a person may repair, and what only another offer can."""


class Duty:
    """Takes offers on and does them.

    Args:
        stage: the agent's means.
        courier: who gets the update.
        clock: wall-clock seconds, for the time that passes while the agent is down.
        monotonic: seconds that never jump.
    """

    def __init__(
        self, stage: Stage, courier: Courier, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._stage, self._courier, self._clock, self._monotonic = stage, courier, clock, monotonic
        self._device, self._workshop, self._journal = stage.parts.device, stage.parts.workshop, stage.journal
        self._waiting: Task | None = None
        self._round: RoundState | None = None
        self._hearsay_until_s = monotonic()

    def pick_up(self) -> None:
        """Go on from what the journal says, after a start or a full disk."""
        task = self._journal.record.task
        if task is None:
            return
        too_old = task.left_s(self._clock()) < -task.offer.deadline_s - OVERDUE_S
        if too_old or self._courier.holds(task.offer.task):
            self._journal.change(task=None)
        else:
            self._waiting, self._hearsay_until_s = task, self._monotonic() + HEARSAY_S

    def on_round(self, state: RoundState) -> None:
        """Where a job stands: a waiting task whose round is over is forgotten."""
        task = self._waiting
        if task is None or state.job != task.offer.job:
            return
        if state.round == task.offer.round and state.phase in ACCEPTING:
            self._hearsay_until_s = self._monotonic()
        elif state.round >= task.offer.round:
            log.info("device %s, round %d: over; its task is dropped", self._device, task.offer.round)
            self._journal.change(task=None)
            self._waiting = None

    def on_offer(self, offer: Offer) -> None:
        """Take an offer on, or decline it."""
        task, current = Task(offer, self._clock()), self._journal.record.task
        if not _is_named_well(offer):
            log.warning(
                "device %s: offer dropped: task %r, shard %r", self._stage.parts.device, offer.task, offer.shard
            )
        elif offer.task == self._journal.record.done or self._courier.holds(offer.task):
            self._courier.hurry()
        elif current is not None and current.offer.task == offer.task:
            self._journal.change(task=task)  # its deadline counts anew
            if self._waiting is not None:
                self._waiting, self._hearsay_until_s = task, self._monotonic()
        elif current is not None and self._waiting is None:
            self._decline(offer, DeclineReason.BUSY, f"at work on task {current.offer.task}")
        elif (closed := first_closed(self._stage.parts.gates)) is not None:
            self._decline(offer, closed.reason, closed.detail, closed.retry_after_s)
        else:
            self._accept(task)

    @property
    def ready(self) -> bool:
        """Whether a task waits and it is time for it."""
        return self._waiting is not None and self._monotonic() >= self._hearsay_until_s

    def start(self) -> None:
        """Begin the waiting task. Only when idle and not busy."""
        assert self._waiting is not None
        offer, self._waiting = self._waiting.offer, None
        log.info("device %s, round %d: takes on task %s at %s", self._device, offer.round, offer.task, offer.precision)
        self._stage.move(Lifecycle.DOWNLOADING)
        self._stage.step(lambda: self._workshop.fetch_base(offer), lambda future: self._on_fetched(offer, future))

    def _accept(self, task: Task) -> None:
        try:
            self._workshop.check(task.offer)
        except Refusal as refusal:
            self._decline(task.offer, refusal.reason, str(refusal))
        else:
            offer = task.offer
            if offer.precision != self._journal.record.precision:
                self._stage.link.listen(offer.precision)
            self._journal.change(task=task, architecture=offer.architecture, precision=offer.precision)
            self._waiting, self._hearsay_until_s = task, self._monotonic()

    def _on_fetched(self, offer: Offer, future: Future[Path]) -> None:
        base, task = self._outcome(offer, future), self._journal.record.task
        if base is not None and task is not None:
            left_s, post = task.left_s(self._clock()), self._stage.post
            self._stage.move(Lifecycle.TRAINING)
            self._stage.step(
                lambda: self._workshop.train(offer, base, left_s, post), lambda future: self._on_trained(offer, future)
            )

    def _on_trained(self, offer: Offer, future: Future[Trained]) -> None:
        trained = self._outcome(offer, future)
        if trained is not None:
            if note := trained.energy.note:
                log.warning("device %s, round %d: energy is modelled: %s", self._device, offer.round, note)
                self._stage.reporter.note = f"energy is modelled: {note}"
            self._stage.move(Lifecycle.ENCODING)
            self._stage.step(
                lambda: self._workshop.encode(offer, trained), lambda future: self._on_encoded(offer, future)
            )

    def _on_encoded(self, offer: Offer, future: Future[Entry]) -> None:
        entry = self._outcome(offer, future)
        if entry is not None:
            self._courier.start(entry)

    def _outcome(self, offer: Offer, future: Future[T]) -> T | None:
        """What a step came to; None when it failed, and the offer is then declined and the agent idle again."""
        try:
            return future.result()
        except Refusal as error:
            reason, detail = error.reason, str(error)
        except DownloadError as error:
            reason, detail = DeclineReason.DOWNLOAD_FAILED, str(error)
        except TrainerError as error:
            reason, detail = DeclineReason.TRAINING_FAILED, str(error)
        except (OutboxFull, OSError) as error:
            reason, detail = DeclineReason.NO_SPACE, str(error)
        self._decline(offer, reason, detail)
        self._stage.reporter.note = detail
        self._stage.move(Lifecycle.IDLE, task=None)
        return None

    def _decline(self, offer: Offer, reason: DeclineReason, detail: str, retry_after_s: float | None = None) -> None:
        log.warning("device %s, round %d: declined (%s): %s", self._device, offer.round, reason, detail)
        after_s = RETRY_AFTER_S[reason] if retry_after_s is None else retry_after_s
        topic = self._stage.parts.topics.response(self._device, offer.task)
        try:
            self._stage.link.send(topic, Decline(offer.task, reason, detail[:MAX_DETAIL], after_s))
        except LinkError as error:
            log.warning("device %s, round %d: could not say so: %s", self._device, offer.round, error)


def _is_named_well(offer: Offer) -> bool:
    """Whether task and shard are single segments of a topic; the task also names a file."""
    try:
        check_name(offer.task, "task")
        check_name(offer.shard, "shard")
    except LocalProtocolError:
        return False
    return True
