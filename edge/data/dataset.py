"""Labelled pictures in memory, and the split that judges training on them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Pictures = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class DataError(Exception):
    """Pictures or labels cannot be used; the message names the file, the value and what was expected."""


@dataclass(frozen=True)
class Dataset:
    """Pictures with their classes.

    Attributes:
        pictures_NCHW: uint8[N, C, H, W].
        labels_N: int64[N], indices into `class_names`.
        class_names: every class of the fleet, also those without a picture here.
        skipped: one sentence for each picture that could not be used.
    """

    pictures_NCHW: Pictures
    labels_N: Labels
    class_names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, indices: npt.NDArray[np.int64]) -> "Dataset":
        """The pictures at `indices`, in that order."""
        return replace(self, pictures_NCHW=self.pictures_NCHW[indices], labels_N=self.labels_N[indices])

    @property
    def counts(self) -> tuple[int, ...]:
        """Pictures of each class."""
        return tuple(np.bincount(self.labels_N, minlength=len(self.class_names)).tolist())


def split(dataset: Dataset, held_out: float, seed: int) -> tuple[Dataset, Dataset]:
    """Divide into a part to train on and a part to judge by, class by class.

    Of n pictures of a class ⌊n·held_out⌋ are held out, so that a class with few pictures keeps them for training.

    Args:
        dataset: what to divide.
        held_out: fraction of each class, 0 to below 1.
        seed: the same seed divides the same way.

    Returns:
        (training part, held-out part), each in the original order.

    Raises:
        DataError: the fraction is out of range.
    """
    if not 0 <= held_out < 1:
        raise DataError(f"held-out fraction {held_out}: expected 0 to below 1")
    rng = np.random.default_rng(seed)
    kept_back = np.zeros(len(dataset), dtype=bool)
    for label in range(len(dataset.class_names)):
        members = np.flatnonzero(dataset.labels_N == label)
        kept_back[rng.permutation(members)[: int(len(members) * held_out)]] = True
    return dataset.take(np.flatnonzero(~kept_back)), dataset.take(np.flatnonzero(kept_back))
