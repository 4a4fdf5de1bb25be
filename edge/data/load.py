"""Which reader a source takes."""

from pathlib import Path
from typing import Protocol

from edge.data.classes import Classes, check_several
from edge.data.dataset import DataError, Dataset
from edge.data.folder import load_folder
from edge.data.idx import has_idx, load_idx
from edge.data.npz import load_npz
from protocol.architecture import Shape


class Reader(Protocol):
    """One kind of source."""

    def __call__(self, source: Path, /, *, input_shape: Shape, classes: Classes) -> Dataset:
        """Everything usable of a source."""
        ...


def load(source: Path, *, input_shape: Shape, classes: Classes = None) -> Dataset:
    """Read a device's pictures.

    Args:
        source: a folder of class folders, a folder of IDX files, or an `.npz` archive.
        input_shape: (C, H, W) the network reads; pictures are brought to it.
        classes: the fleet's class names in order, or their number; without either, what is here is all there is.

    Returns:
        The pictures in an order that depends on names alone, and a sentence for each that was skipped.

    Raises:
        DataError: nothing usable is there; the message names file, value and expectation.
    """
    if source.is_dir():
        reader: Reader = load_idx if has_idx(source) else load_folder
    elif source.suffix == ".npz" and source.is_file():
        reader = load_npz
    else:
        found = "a file" if source.exists() else "nothing"
        raise DataError(f"{source}: found {found}, expected a folder of pictures or IDX files, or an .npz archive")
    try:
        dataset = reader(source, input_shape=input_shape, classes=classes)
    except PermissionError as error:
        raise DataError(f"{source}: may not be read: {error.strerror}") from error
    check_several(dataset.labels_N, classes, str(source))
    return dataset
