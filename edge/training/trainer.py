"""Local training: global tensors and local pictures in, an update out.

The same task, base and pictures give the same bits: one thread, one seeded generator for order and augmentation.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edge.data import Dataset, Labels, Pictures, split
from edge.training.augment import shifted
from edge.training.calibration import StepSearch
from edge.training.methods import method_for
from edge.training.methods.base import Term
from edge.training.model import Model
from edge.training.moments import MomentPool
from edge.training.optimizer import optimizer_for
from edge.training.task import Progress, Report, TrainerError, TrainingResult, TrainingTask
from protocol import networks
from protocol.architecture import MOMENTS, Architecture, Norm, Tensors
from protocol.method import Method
from protocol.precision import parse_several

SPLIT_SEED: Final = 0
"""The same pictures are held out in every round: otherwise the model would have seen them in another."""

MEASURE_BATCH: Final = 64
"""Pictures per batch where nothing is trained; enough for batch statistics, small enough for a 1 GB board."""


def train(
    task: TrainingTask,
    base: Tensors,
    dataset: Dataset,
    progress: Callable[[Progress], None],
    device: str = "cpu",
) -> TrainingResult:
    """Train `task.epochs` passes from `base` and measure the moments of what came out.

    Args:
        task: what to do.
        base: every tensor of the task's architecture and precisions.
        dataset: local pictures in the architecture's input shape.
        progress: called after every step.
        device: torch's name of where to compute; only `cpu` gives the same bits everywhere.

    Returns:
        Deltas, absolute moments, and the report.

    Raises:
        TrainerError: the loss or a learned step left the finite numbers, or pictures, task and architecture do not
            fit one another.
    """
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    session = _Session(task, base, dataset, device)
    loss, accuracy = session.run(progress)
    session.model.update(session.measure_moments())
    report = Report(
        samples=len(session.training),
        loss=loss,
        train_accuracy=accuracy,
        held_out_accuracy=session.held_out_accuracy(),
        wall_s=time.perf_counter() - began_s,
        cpu_s=time.process_time() - began_cpu_s,
        architecture=task.architecture,
        precision=task.precision,
    )
    roles = {spec.name: spec.role for spec in session.model.specs}
    tensors = session.model.tensors()
    update = {name: value if roles[name] in MOMENTS else value - base[name] for name, value in tensors.items()}
    return TrainingResult(update, report)


class _Session:
    """One task under way."""

    def __init__(self, task: TrainingTask, base: Tensors, dataset: Dataset, device: str) -> None:
        architecture, precisions = networks.parse(task.architecture), parse_several(task.precision)
        _check_fit(architecture, dataset)
        self.task = task
        self.model = Model(architecture, precisions, base, device)
        self.method = method_for(Method.parse(task.method), self.model, task.seed)
        self.training, self.held_out = split(dataset, task.held_out, SPLIT_SEED)
        self._rng = np.random.default_rng(task.seed)
        if task.epochs:
            _check_batches(task, architecture, len(self.training))

    def run(self, progress: Callable[[Progress], None]) -> tuple[float, float]:
        """Train; mean loss and accuracy of the last epoch."""
        if self.task.calibrate_steps:
            self._calibrate_steps()
        if self.task.epochs == 0:
            return self._judge(self.training)
        optimizer = optimizer_for(self.model, self.task.learning_rate)
        steps = self.task.epochs * math.ceil(len(self.training) / self.task.batch)
        done = 0
        for epoch in range(self.task.epochs):
            tally = _Tally()
            for pictures, labels in self._shuffled_batches():
                optimizer.zero_grad()
                for term in self.method.terms(pictures, labels):
                    self._require_finite(term, f"epoch {epoch + 1}, step {done + 1} of {steps}")
                    tally.add(term, labels)
                    term.loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                self.method.settle()
                done += 1
                progress(Progress(done / steps, epoch + 1, tally.loss))
            self.model.check_steps()
        return tally.loss, tally.accuracy

    def _require_finite(self, term: Term, where: str) -> None:
        loss = float(term.loss.detach())
        if not math.isfinite(loss):
            self.model.check_steps()
            raise TrainerError(
                f"loss {loss} in {where}: expected a finite number; learning rate {self.task.learning_rate:g} may be"
                " too high"
            )

    @torch.no_grad()
    def measure_moments(self) -> Tensors:
        """Moments of every normalised layer at every precision, by the names of `Model.values`."""
        count = self.task.moment_pictures
        pictures = self.training if count is None else self.training.take(self._some(count))
        moments: Tensors = {}
        for precision, network in self.model.networks.items():
            pool = MomentPool(network)
            for batch, _ in self._batches(pictures):
                self.method.logits(network, batch, pool)
            prefix = "" if network is self.model.own else f"{precision}/"
            moments |= {f"{prefix}{name}": value for name, value in pool.tensors().items()}
        return moments

    def held_out_accuracy(self) -> float | None:
        """Of the network as deployed, with its own moments."""
        return self._judge(self.held_out)[1] if len(self.held_out) else None

    @torch.no_grad()
    def _calibrate_steps(self) -> None:
        pictures, _ = next(self._batches(self.training.take(self._some(MEASURE_BATCH))))
        for network in self.model.networks.values():
            self.method.logits(network, pictures, network.by_batch, StepSearch(network))

    @torch.no_grad()
    def _judge(self, dataset: Dataset) -> tuple[float, float]:
        tally = _Tally()
        for pictures, labels in self._batches(dataset):
            logits = self.method.logits(self.model.own, pictures)
            tally.add(Term(functional.cross_entropy(logits, labels), logits), labels)
        return tally.loss, tally.accuracy

    def _some(self, count: int) -> npt.NDArray[np.int64]:
        return self._rng.permutation(len(self.training))[:count]

    def _shuffled_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._rng.permutation(len(self.training))
        for part in np.array_split(order, math.ceil(len(order) / self.task.batch)):
            pictures = self.training.pictures_NCHW[part]
            if self.task.augment:
                pictures = shifted(pictures, self._rng)
            yield self._placed(pictures, self.training.labels_N[part])

    def _batches(self, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(dataset), MEASURE_BATCH):
            part = slice(start, start + MEASURE_BATCH)
            yield self._placed(dataset.pictures_NCHW[part], dataset.labels_N[part])

    def _placed(self, pictures_NCHW: Pictures, labels_N: Labels) -> tuple[Tensor, Tensor]:
        device = self.model.device
        return torch.from_numpy(pictures_NCHW).to(device), torch.from_numpy(labels_N).to(device)


class _Tally:
    """Running mean of loss and accuracy at the model's own precision."""

    def __init__(self) -> None:
        self._loss_sum = 0.0
        self._right = 0
        self._count = 0

    def add(self, term: Term, labels: Tensor) -> None:
        """Add a term of a batch's loss; only the one with logits counts, which comes once a batch."""
        if term.logits is not None:
            self._loss_sum += float(term.loss.detach()) * len(labels)
            self._count += len(labels)
            self._right += int((term.logits.argmax(1) == labels).sum())

    @property
    def loss(self) -> float:
        return self._loss_sum / self._count

    @property
    def accuracy(self) -> float:
        return self._right / self._count


def _check_fit(architecture: Architecture, dataset: Dataset) -> None:
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


def _check_batches(task: TrainingTask, architecture: Architecture, pictures: int) -> None:
    """A single value has no variance, so that its normalised value would say nothing of it."""
    smallest = pictures // math.ceil(pictures / task.batch)
    single = [row.name for row in architecture.layers if row.norm and math.prod(row.out_shape[1:]) == 1]
    if smallest == 1 and single and architecture.norm is Norm.BATCH:
        raise TrainerError(
            f"{pictures} pictures in batches of {task.batch} make a batch of 1, which {single[0]} cannot normalise by"
            " its own statistics: expected two pictures or more, or a network with norm=group"
        )
