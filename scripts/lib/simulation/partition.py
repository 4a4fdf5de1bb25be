"""Which pictures there are, which device holds which, and which nobody trains on.

`iid` deals a shuffled pack, sizes equal to within one. `dirichlet:α` deals each class by its own draw from
Dirichlet(α) (`pictures.deal`); sizes are uneven, too. Both depend on the run's seed alone.

**Smallest shard.** A small α leaves some devices with nothing at all. Devices below `MIN_SHARD` pictures (or an equal
share, where there are too few for that) take drawn ones from whoever then holds most, until they have them.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pictures import FASHION_MNIST, deal

from edge.data import DataError, Dataset, load, split
from edge.data.fit import fit_array
from edge.data.idx import read_idx
from protocol import networks
from protocol.architecture import Shape
from simulation.errors import SimulationError
from simulation.seeds import generator
from simulation.setup import Setup

MIN_SHARD: Final = 10
"""Pictures: enough for a batch with statistics of its own."""
HELD_OUT: Final = 0.2
"""Of each class, where a data set was published without test pictures."""
SPLIT_SEED: Final = 0
"""The same pictures are held out for every seed, so that all runs sit the same test."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """Pictures of a whole fleet.

    Attributes:
        train: what the devices share.
        parts: for each device, which of them it holds, in rising order.
        test: what no device ever sees.
    """

    train: Dataset
    parts: tuple[Indices, ...]
    test: Dataset


@lru_cache(maxsize=16)
def gather(setup: Setup) -> Deal:
    """The pictures of a run, in its network's input shape.

    Raises:
        SimulationError: there is no such data, too little of it, more classes than the network has, or no such
            partition.
    """
    network = networks.parse(setup.network)
    try:
        train, test = load_both(setup.data, network.input_shape)
    except DataError as error:
        raise SimulationError(f"data {setup.data}: {error}") from error
    if len(train.class_names) > network.classes:
        raise SimulationError(f"data {setup.data}: {len(train.class_names)} classes, expected {network.classes}")
    count = setup.pictures or len(train)
    if not setup.devices <= count <= len(train):
        raise SimulationError(
            f"pictures {count} for {setup.devices} devices: expected at least one each, and at most the {len(train)}"
            f" that {setup.data} has to train on"
        )
    rng = generator(setup.seed, 0, "deal")
    chosen_N = np.sort(rng.permutation(len(train))[:count])
    parts = parts_of(setup.partition, train.labels_N[chosen_N], setup.devices, rng)
    return Deal(train, tuple(chosen_N[part] for part in parts), test)


def test_pictures(setup: Setup) -> int:
    """How many there are; asked in a worker, so that what is wrong with the data is said before the first round."""
    return len(gather(setup).test)


def parts_of(partition: str, labels_N: Indices, devices: int, rng: np.random.Generator) -> tuple[Indices, ...]:
    """Indices into `labels_N` for each device: every one once, in rising order.

    Raises:
        SimulationError: the partition is neither `iid` nor `dirichlet:` and a positive number.
    """
    if partition == "iid":
        pieces = np.array_split(rng.permutation(len(labels_N)), devices)
        return tuple(np.sort(piece) for piece in pieces)
    kind, _, text = partition.partition(":")
    try:
        alpha = float(text) if kind == "dirichlet" else 0.0
    except ValueError:
        alpha = 0.0
    if not 0 < alpha < np.inf:
        raise SimulationError(f"partition {partition!r}: expected iid, or dirichlet: and a positive number")
    minimum = min(MIN_SHARD, len(labels_N) // devices)
    return with_minimum(deal(labels_N, devices, alpha, rng), minimum, rng)


def with_minimum(parts: tuple[Indices, ...], minimum: int, rng: np.random.Generator) -> tuple[Indices, ...]:
    """`parts` with at least `minimum` indices each, taken from the fullest."""
    held = [part.tolist() for part in parts]
    for part in held:
        while len(part) < minimum:
            fullest = max(held, key=len)
            part.append(fullest.pop(int(rng.integers(len(fullest)))))
    return tuple(np.sort(np.array(part, dtype=np.int64)) for part in held)


@lru_cache(maxsize=2)
def load_both(source: str, input_shape: Shape) -> tuple[Dataset, Dataset]:
    """Pictures to train on and pictures to judge by: the published test part where there is one.

    Raises:
        DataError: nothing usable is there.
    """
    if source == "digits":
        return split(_digits(input_shape), HELD_OUT, SPLIT_SEED)
    if source == "fashion-mnist" and not FASHION_MNIST.is_dir():
        raise DataError(f"{FASHION_MNIST} is not there: install the package dataset-fashion-mnist, or use digits")
    folder = FASHION_MNIST if source == "fashion-mnist" else Path(source)
    data = load(folder, input_shape=input_shape)
    test = _published_test(folder, data)
    return split(data, HELD_OUT, SPLIT_SEED) if test is None else (data, test)


def _published_test(folder: Path, train: Dataset) -> Dataset | None:
    """The t10k part of a folder of IDX files, beside the train part that `load` reads where both are there."""
    if not list(folder.glob("train-images-idx3-ubyte*")):
        return None
    pictures, labels = (_one(folder, name) for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
    if pictures is None or labels is None:
        return None
    labels_N = read_idx(labels, 1).astype(np.int64)
    pictures_NCHW = fit_array(read_idx(pictures, 3)[:, None], train.pictures_NCHW.shape[1:])
    if len(pictures_NCHW) != len(labels_N) or labels_N.max() >= len(train.class_names):
        raise DataError(f"{labels}: expected {len(pictures_NCHW)} labels below {len(train.class_names)}")
    return Dataset(pictures_NCHW, labels_N, train.class_names)


def _one(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _digits(input_shape: Shape) -> Dataset:
    """scikit-learn's 1,797 grey digits of 8×8 pixels, resized."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 (a second of import that other sources need not pay)

    digits = load_digits()
    pictures_N1HW = (digits.images[:, None] * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    return Dataset(fit_array(pictures_N1HW, input_shape), digits.target.astype(np.int64), names)
