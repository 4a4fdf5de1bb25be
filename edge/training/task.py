"""What the trainer is asked and what it answers; the agent shares this file, so there is no torch in it."""

from dataclasses import dataclass

from protocol.architecture import Tensors
from protocol.method import DEFAULT_METHOD


class TrainerError(Exception):
    """Training could not be done; the message says what, with which value, and what was expected."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One piece of local work, as an offer states it.

    Attributes:
        architecture: spec string of the network.
        precision: `fp32` or `WxAy`, or several joined by `+`.
        epochs: passes over the local pictures; 0 only measures.
        batch: pictures per step.
        learning_rate: of the weights, for every step of this task.
        seed: of order and augmentation; the same task, base and pictures give the same bits.
        calibrate_steps: whether to set activation steps from the first batches, for a fresh model.
        held_out: fraction of the pictures of each class kept from training to judge the result.
        method: how to train (`protocol.method`).
        moment_pictures: how many pictures moments are measured over; None for all, 0 to leave the base's.
        augment: whether pictures are shifted by a few pixels, which helps where there are few of them.
    """

    architecture: str
    precision: str
    epochs: int
    batch: int
    learning_rate: float
    seed: int
    calibrate_steps: bool = False
    held_out: float = 0.1
    method: str = DEFAULT_METHOD
    moment_pictures: int | None = None
    augment: bool = True

    def __post_init__(self) -> None:
        bounds = {
            "epochs": (self.epochs, 0, 1000),
            "batch": (self.batch, 1, 4096),
            "learning_rate": (self.learning_rate, 0, 10),
            "seed": (self.seed, 0, (1 << 63) - 1),
            "held_out": (self.held_out, 0, 0.9),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise TrainerError(f"task {name} {value}: expected {low} to {high}")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is: `fraction` from 0 to 1, and the mean loss of the epoch so far."""

    fraction: float
    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class Report:
    """What local training came to.

    Attributes:
        samples: pictures trained on, and behind the moments.
        loss: mean cross-entropy in nats over the last epoch; at 0 epochs, of the base model.
        train_accuracy: fraction right in the last epoch, augmentation included.
        held_out_accuracy: fraction right on the pictures kept back, None when there are none.
        wall_s: elapsed time.
        cpu_s: processor time.
        architecture: of the network, as the task named it; precision likewise.
    """

    samples: int
    loss: float
    train_accuracy: float
    held_out_accuracy: float | None
    wall_s: float
    cpu_s: float
    architecture: str
    precision: str

    @property
    def accuracy(self) -> float:
        """The most honest accuracy there is: held out where possible."""
        return self.train_accuracy if self.held_out_accuracy is None else self.held_out_accuracy


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """An update: new − base for every tensor but the moments, which are absolute; and its report."""

    tensors: Tensors
    report: Report
