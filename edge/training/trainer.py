"""Local training: global tensors and local pictures in, an update out.

The same task, base and pictures give the same bits: one thread, one seeded generator for order and augmentation.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge.data import Dataset, split
from edge.training.augment import shifted
from edge.training.calibration import StepSearch
from edge.training.moments import MomentPool
from edge.training.network import Network
from edge.training.optimizer import optimizer_for
from edge.training.task import Progress, Report, TrainerError, TrainingResult, TrainingTask
from protocol import architecture as tables
from protocol.architecture import MOMENTS, Tensors
from protocol.precision import Precision

SPLIT_SEED: Final = 0
"""The same pictures are held out in every round: otherwise the model would have seen them in another."""

MEASURE_BATCH: Final = 64
"""Pictures per batch where nothing is trained; enough for batch statistics, small enough for a 1 GB board."""


def train(task: TrainingTask, base: Tensors, dataset: Dataset, progress: Callable[[Progress], None]) -> TrainingResult:
    """Train `task.epochs` passes from `base` and measure the moments of what came out.

    Args:
        task: what to do.
        base: every tensor of the task's architecture and precision.
        dataset: local pictures in the architecture's input shape.
        progress: called after every step.

    Returns:
        Deltas, absolute moments, and the report.

    Raises:
        TrainerError: the loss stopped being finite, or pictures and architecture do not fit.
    """
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    session = _Session(task, base, dataset)
    loss, accuracy = session.run(progress)
    moments = session.measure_moments()
    tensors = session.network.tensors() | moments
    session.network.load_tensors(tensors)
    report = Report(
        samples=len(session.training),
        loss=loss,
        train_accuracy=accuracy,
        held_out_accuracy=session.held_out_accuracy(),
        wall_s=time.perf_counter() - began_s,
        cpu_s=time.process_time() - began_cpu_s,
    )
    roles = {spec.name: spec.role for spec in session.network.specs}
    update = {name: value if roles[name] in MOMENTS else value - base[name] for name, value in tensors.items()}
    return TrainingResult(update, report)


class _Session:
    """One task under way."""

    def __init__(self, task: TrainingTask, base: Tensors, dataset: Dataset) -> None:
        architecture = tables.parse(task.architecture)
        _check_fit(architecture, dataset)
        self.task = task
        self.network = Network(architecture, Precision.parse(task.precision), base)
        self.training, self.held_out = split(dataset, task.held_out, SPLIT_SEED)
        self._rng = np.random.default_rng(task.seed)

    def run(self, progress: Callable[[Progress], None]) -> tuple[float, float]:
        """Train; mean loss and accuracy of the last epoch."""
        if self.task.calibrate_steps:
            self._calibrate_steps()
        if self.task.epochs == 0:
            return self._judge(self.training)
        optimizer = optimizer_for(self.network, self.task.learning_rate)
        steps = self.task.epochs * math.ceil(len(self.training) / self.task.batch)
        done = 0
        for epoch in range(self.task.epochs):
            tally = _Tally()
            for pictures, labels in self._shuffled_batches():
                logits = self.network(pictures, self.network.by_batch)
                loss = functional.cross_entropy(logits, labels)
                tally.add(logits, labels, loss)
                if not math.isfinite(tally.loss):
                    raise TrainerError(
                        f"loss {tally.loss} in epoch {epoch + 1}, step {done + 1} of {steps}: expected a finite"
                        f" number; learning rate {self.task.learning_rate:g} may be too high"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                done += 1
                progress(Progress(done / steps, epoch + 1, tally.loss))
        return tally.loss, tally.accuracy

    @torch.no_grad()
    def measure_moments(self) -> Tensors:
        """Moments of every normalised layer over the training pictures."""
        pool = MomentPool(self.network)
        for pictures, _ in _batches(self.training):
            self.network(pictures, pool)
        return pool.tensors()

    def held_out_accuracy(self) -> float | None:
        """Of the network as deployed, with its own moments."""
        return self._judge(self.held_out)[1] if len(self.held_out) else None

    @torch.no_grad()
    def _calibrate_steps(self) -> None:
        pictures, _ = next(_batches(self.training.take(self._rng.permutation(len(self.training)))))
        self.network(pictures, self.network.by_batch, StepSearch(self.network))

    @torch.no_grad()
    def _judge(self, dataset: Dataset) -> tuple[float, float]:
        tally = _Tally()
        for pictures, labels in _batches(dataset):
            logits = self.network(pictures)
            tally.add(logits, labels, functional.cross_entropy(logits, labels))
        return tally.loss, tally.accuracy

    def _shuffled_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._rng.permutation(len(self.training))
        for part in np.array_split(order, math.ceil(len(order) / self.task.batch)):
            pictures = shifted(self.training.pictures_NCHW[part], self._rng)
            yield torch.from_numpy(pictures), torch.from_numpy(self.training.labels_N[part])


class _Tally:
    """Running mean of loss and accuracy."""

    def __init__(self) -> None:
        self._loss_sum = 0.0
        self._right = 0
        self._count = 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        self._count += len(labels)
        self._loss_sum += float(loss.detach()) * len(labels)
        self._right += int((logits.argmax(1) == labels).sum())

    @property
    def loss(self) -> float:
        return self._loss_sum / self._count

    @property
    def accuracy(self) -> float:
        return self._right / self._count


def _batches(dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(dataset), MEASURE_BATCH):
        part = slice(start, start + MEASURE_BATCH)
        yield torch.from_numpy(dataset.pictures_NCHW[part]), torch.from_numpy(dataset.labels_N[part])


def _check_fit(architecture: tables.Architecture, dataset: Dataset) -> None:
    if dataset.pictures_NCHW.shape[1:] != architecture.input_shape:
        raise TrainerError(
            f"pictures of shape {dataset.pictures_NCHW.shape[1:]}: expected {architecture.input_shape}"
            f" for {architecture.spec}"
        )
    if not len(dataset):
        raise TrainerError("no pictures to train on: expected at least one")
    top = int(dataset.labels_N.max())
    if top >= architecture.classes:
        raise TrainerError(f"label {top}: expected below {architecture.classes} for {architecture.spec}")
