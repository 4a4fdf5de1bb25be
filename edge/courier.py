"""From the outbox to the receipt: UPLOADING ⇄ AWAIT_RECEIPT → IDLE."""

import logging
import random
from concurrent.futures import Future
from typing import Any

from edge.lifecycle import Lifecycle
from edge.mqtt import LinkError
from edge.outbox import Entry
from edge.stage import Stage
from edge.upload import Upload
from protocol.errors import Refusal, RemoteProtocolError
from protocol.messages import Need, Outcome, Receipt

log = logging.getLogger(__name__)


class Revoked(Exception):
    """The aggregator has shut this device out."""


class Courier:
    """Carries one update at a time.

    Args:
        stage: the agent's means.
        rng: for jitter.
    """

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self._stage, self._rng = stage, rng
        self._outbox, self._residuals = stage.parts.workshop.outbox, stage.parts.workshop.residuals
        self._upload: Upload | None = None
        self._need: Need | None = None
        self.server_online = True

    def holds(self, task: str) -> bool:
        """Whether the update of `task` is in the outbox."""
        return self._outbox.get(task) is not None

    def owed(self) -> Entry | None:
        """The oldest update without a receipt."""
        return next(self._outbox.pending(), None)

    def start(self, entry: Entry) -> None:
        """Begin to carry `entry`. From here on its offer is not needed any more."""
        parts, task = self._stage.parts, self._stage.journal.record.task
        self._upload = Upload(entry, parts.device, parts.topics, self._stage.link, rng=self._rng)
        self._need = None
        answers = task is not None and task.offer.task == entry.task
        self._stage.move(Lifecycle.UPLOADING, **({"task": None} if answers else {}))

    def forget(self) -> None:
        """Put everything down; the outbox still has it."""
        self._upload = self._need = None

    def hurry(self) -> None:
        """The aggregator is there (again): ask it at once."""
        if self._upload is not None:
            self._upload.hurry()

    def on_need(self, need: Need) -> None:
        """Chunks are missing; sent as soon as the hands are free."""
        self._need = need

    def advance(self) -> None:
        """Send what was asked for, or the manifest when it is time. Only when not busy."""
        upload, need = self._upload, self._need
        assert upload is not None
        if need is not None and need.task == upload.entry.task:
            self._need = None
            upload.hurry()
            upload.later()
            if self._stage.lifecycle is Lifecycle.AWAIT_RECEIPT:
                self._stage.move(Lifecycle.UPLOADING)
            self._stage.step(lambda: upload.send_chunks(need), self._on_chunks_sent)
        elif upload.due and self.server_online and self._stage.link.connected:
            upload.later()
            self._stage.step(upload.send_manifest, self._on_manifest_sent)

    def on_receipt(self, receipt: Receipt) -> None:
        """The aggregator's final word; only here does an update leave the outbox.

        Raises:
            Revoked: the word is that the device is shut out.
        """
        device, entry = self._stage.parts.device, self._outbox.get(receipt.task)
        if entry is None:
            return
        if receipt.digest != entry.manifest.digest:
            log.warning("device %s: receipt for another payload of task %s ignored", device, receipt.task)
            return
        if receipt.outcome is Outcome.ACCEPTED:
            log.info("device %s, round %d: update of %d bytes accepted", device, receipt.round, len(entry.payload))
            self._residuals.promote(receipt.task)
        else:
            log.warning(
                "device %s, round %d: update refused (%s): %s", device, receipt.round, receipt.refusal, receipt.reason
            )
            self._residuals.drop(receipt.task)
        self._outbox.remove(receipt.task)
        self._close(receipt)

    def _close(self, receipt: Receipt) -> None:
        if receipt.code is Refusal.REVOKED:
            self._stage.move(Lifecycle.REVOKED, done=receipt.task)
            raise Revoked(f"device {self._stage.parts.device}: revoked by its aggregator ({receipt.reason})")
        if self._upload is not None and self._upload.entry.task == receipt.task:
            self.forget()
            self._stage.move(Lifecycle.IDLE, done=receipt.task)
        else:
            self._stage.journal.change(done=receipt.task)

    def _on_manifest_sent(self, future: Future[None]) -> None:
        self._delivered(future)  # the answer is what counts

    def _on_chunks_sent(self, future: Future[int]) -> None:
        # The receipt may have come first: the last acknowledgement and it travel on different ways.
        if self._delivered(future) and self._stage.lifecycle is Lifecycle.UPLOADING:
            self._stage.move(Lifecycle.AWAIT_RECEIPT)

    def _delivered(self, future: Future[Any]) -> bool:
        try:
            future.result()
        except (LinkError, RemoteProtocolError) as error:
            log.warning("device %s: upload held up: %s", self._stage.parts.device, error)
            return False
        return True
