"""An update as a device makes it, for benchmarks: a few real steps on real pictures."""

from dataclasses import dataclass

from pictures import SHAPE, gather

from edge.data import Dataset
from edge.training.task import TrainingTask
from edge.training.trainer import train
from protocol import networks
from protocol.architecture import Tensors
from protocol.initial import initial_tensors
from protocol.precision import Precision

PRECISION = "W4A8"
FULL_WIDTH = f"resnet18:width=1,stem=3x3,input={'x'.join(map(str, SHAPE))},classes=10"
NARROW = FULL_WIDTH.replace("width=1", "width=0.125")


@dataclass(frozen=True)
class RealUpdate:
    """Deltas and moments of one device.

    Attributes:
        architecture: spec of the network.
        tensors: by name, float32.
        pictures: how many it saw.
    """

    architecture: str
    tensors: Tensors
    pictures: int

    @property
    def parameters(self) -> int:
        """Values of all tensors."""
        return sum(tensor.size for tensor in self.tensors.values())


def make(architecture: str, *, pictures: int = 64, batch: int = 16, seed: int = 0) -> RealUpdate:
    """Train one epoch from fresh weights on Fashion-MNIST, or on scikit-learn's digits where that is not installed."""
    fleet = gather("auto", 1, alpha=1.0, seed=seed)
    data = Dataset(fleet.train_NCHW[:pictures], fleet.train_N[:pictures], fleet.class_names)
    task = TrainingTask(
        architecture, PRECISION, 1, batch, 0.05, seed, calibrate_steps=True, held_out=0.0, moment_pictures=batch
    )
    base = initial_tensors(networks.parse(architecture), Precision.parse(PRECISION), seed)
    result = train(task, base, data, lambda _: None)
    return RealUpdate(architecture, result.tensors, result.report.samples)
