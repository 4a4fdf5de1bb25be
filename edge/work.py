"""The work behind an offer, step by step: fetch the base model, train, encode, put into the outbox.

Everything random follows from the offer's seed and the device's name, so a task done again after a crash gives the
same bytes, and the aggregator cannot count it twice.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np

from edge.bases import Bases
from edge.broadcasts import Broadcasts
from edge.downloads import Downloads
from edge.meters.base import Meter
from edge.meters.span import Energy, Span
from edge.outbox import Entry, Outbox
from edge.residual import Residuals
from edge.spending import Spending
from edge.trainer_process import TrainerProcess, TrainingRequest
from edge.training.files import read_result, write_tensors
from edge.training.task import Progress, TrainingResult, TrainingTask
from protocol import networks
from protocol.chunks import DEFAULT_CHUNK_BYTES
from protocol.codec.feedback import encode_with_feedback
from protocol.codec.payload import Content, Header, decode
from protocol.codec.recipe import Recipe
from protocol.energy import TRAINING_PASSES, training_energy_mj
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import DeclineReason, Manifest, Offer
from protocol.method import Method
from protocol.precision import parse_several

TRAINABLE: Final = ("fp32", "W8A8", "W6A8", "W5A8", "W4A8", "W3A8", "W2A8", "W1A8", "W4A4", "W3A3", "W2A2", "W1A1")
"""Precisions that trainer and exporter both have."""
PATIENCE: Final = 2.0
"""Training may take this many times what is left until the deadline: the aggregator extends rounds once."""
MIN_PATIENCE_S: Final = 60.0
SPACE_FACTOR: Final = 4
"""Base as it came, base and result for the trainer, and the update: each at most fp32."""


class Refusal(Exception):
    """The work cannot be done; `reason` is what the aggregator is told."""

    def __init__(self, reason: DeclineReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gave, and what it took."""

    result: TrainingResult
    energy: Energy


@dataclass(frozen=True)
class Workshop:
    """What the work needs, assembled once.

    Attributes:
        device: its name.
        folder: for files between the steps.
        data: the pictures, None for a member that only infers.
        classes: the fleet's class names, None to go by their number.
        downloads, broadcasts, trainer, residuals, outbox, meter, spending: the tools.
    """

    device: str
    folder: Path
    data: Path | None
    classes: tuple[str, ...] | None
    downloads: Downloads
    broadcasts: Broadcasts
    trainer: TrainerProcess
    residuals: Residuals
    outbox: Outbox
    meter: Meter
    spending: Spending

    def check(self, offer: Offer) -> None:
        """Raise Refusal if the offer is beyond this device."""
        try:
            table = networks.parse(offer.architecture).digest
            Recipe.parse(offer.recipe)
            Method.parse(offer.method)
            strangers = {str(precision) for precision in parse_several(offer.precision)}.difference(TRAINABLE)
        except RemoteProtocolError as error:
            raise Refusal(DeclineReason.UNSUPPORTED, str(error)) from error
        if offer.table not in {b"", table}:
            detail = (
                f"the layers of {offer.architecture} are others here: table {table.hex()[:12]}, expected"
                f" {offer.table.hex()[:12]}; one of the two sides needs an update"
            )
            raise Refusal(DeclineReason.UNSUPPORTED, detail)
        if strangers:
            detail = f"precision {min(strangers)!r}: this device trains {', '.join(TRAINABLE)}"
            raise Refusal(DeclineReason.UNSUPPORTED, detail)
        if self.data is None:
            raise Refusal(DeclineReason.NO_DATA, "no pictures configured (data)")
        if not can_train():
            raise Refusal(DeclineReason.NO_TRAINER, "torch is not installed: bitfleet[edge-train]")
        free_bytes, needed_bytes = shutil.disk_usage(self.folder).free, SPACE_FACTOR * offer.base_bytes
        if free_bytes < needed_bytes:
            detail = f"{free_bytes} bytes free in {self.folder}, expected {needed_bytes}"
            raise Refusal(DeclineReason.NO_SPACE, detail)

    def fetch_base(self, offer: Offer) -> Path:
        """Download the base model and lay its tensors out for the trainer.

        Raises:
            DownloadError: it cannot be fetched.
            Refusal: it is not the model the offer speaks of.
            OSError: the disk is full.
        """
        data = Bases(self.downloads, self.broadcasts).fetch(offer)
        try:
            base = decode(data)
        except RemoteProtocolError as error:
            raise Refusal(DeclineReason.UNSUPPORTED, f"base model: {error}") from error
        header = base.header
        found = (header.architecture, header.precision, header.content)
        if found != (offer.architecture, offer.precision, Content.WEIGHTS):
            raise Refusal(DeclineReason.UNSUPPORTED, f"base model is {found}, not what the offer says")
        path = self.folder / "base.npz"
        write_tensors(path, base.tensors)
        return path

    def train(self, offer: Offer, base: Path, left_s: float, on_progress: Callable[[Progress], None]) -> Trained:
        """Train on the local pictures.

        Raises:
            TrainerError: the trainer refused, crashed or took too long.
        """
        assert self.data is not None
        task = TrainingTask(
            architecture=offer.architecture,
            precision=offer.precision,
            epochs=offer.epochs,
            batch=offer.batch,
            learning_rate=offer.learning_rate,
            seed=_seed(offer, self.device, "training"),
            calibrate_steps=offer.calibrate_steps,
            method=offer.method,
        )
        classes = self.classes or networks.parse(offer.architecture).classes
        # What moved weights stays until the next that does: `codecs` measures recipes on it.
        result_path = self.folder / ("result.npz" if offer.epochs else "measured.npz")
        request = TrainingRequest(task, base, self.data, result_path, classes)
        timeout_s = max(MIN_PATIENCE_S, PATIENCE * left_s)
        span = Span(self.meter)
        result = read_result(self.trainer.run(request, on_progress, timeout_s=timeout_s))
        energy = span.end(_modelled_mj(offer, result.report.samples))
        self.spending.note(energy)
        return Trained(result, energy)

    def encode(self, offer: Offer, trained: Trained) -> Entry:
        """Turn the result into bytes and keep them: in the outbox when this returns.

        Raises:
            Refusal: the result cannot be encoded: training diverged.
            OutboxFull: no room.
        """
        report = trained.result.report
        content = Content.DELTA if offer.epochs else Content.PROFILES
        header = Header(offer.architecture, offer.recipe, offer.precision, content, report.samples, offer.codec_seed)
        residual = self.residuals.load(offer.architecture, offer.round)
        rng = np.random.default_rng(_seed(offer, self.device, "rounding"))
        try:
            payload, residual = encode_with_feedback(header, trained.result.tensors, residual, rng, offer.codec_steps)
        except LocalProtocolError as error:
            raise Refusal(DeclineReason.TRAINING_FAILED, f"training diverged: {error}") from error
        books = self.spending.take(trained.energy)
        manifest = Manifest(
            task=offer.task,
            nonce=offer.nonce,
            round=offer.round,
            base=offer.base,
            digest=sha256(payload).digest(),
            payload_bytes=len(payload),
            chunk_bytes=DEFAULT_CHUNK_BYTES,
            samples=report.samples,
            loss=report.loss,
            accuracy=report.accuracy,
            train_s=report.wall_s,
            energy_mj=trained.energy.mj,
            energy_source=trained.energy.source,
            fetched_bytes=books.fetched_bytes,
            spent=books.spent,
        )
        entry = Entry(offer.shard, manifest, payload)
        if residual:  # before the outbox: what lies there is never trained, and so never encoded, again
            self.residuals.propose(offer.task, offer.architecture, offer.round, residual)
        self.outbox.put(entry)
        return entry


def can_train() -> bool:
    """Whether torch is there; it is not imported to find out."""
    return find_spec("torch") is not None


def _seed(offer: Offer, device: str, purpose: str) -> int:
    """63 bits that belong to this offer, device and purpose alone."""
    text = f"{offer.seed} {device} {purpose}"
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> 1


def _modelled_mj(offer: Offer, samples: int) -> float:
    """Energy of a task: its epochs, and one forward pass more that measures the moments."""
    once_mj = training_energy_mj(networks.parse(offer.architecture), samples)
    return once_mj * (offer.epochs + 1 / TRAINING_PASSES)
