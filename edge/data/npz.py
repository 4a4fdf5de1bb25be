"""Numpy archives: `pictures` (or `x`, `images`) beside `labels` (or `y`)."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.data.classes import Classes, check_labels
from edge.data.dataset import DataError, Dataset, Labels, Pictures
from edge.data.fit import fit_array
from protocol.architecture import Shape

PICTURE_NAMES: Final = ("pictures", "x", "images")
LABEL_NAMES: Final = ("labels", "y")
MAX_BYTES: Final = 1 << 31
"""Of one array, unpacked."""


def load_npz(path: Path, *, input_shape: Shape, classes: Classes) -> Dataset:
    """Pictures uint8[N, H, W], [N, H, W, C] or [N, C, H, W] and integer labels[N].

    Raises:
        DataError: the file is damaged, or an array is missing or not of that kind.
    """
    pictures, labels = _arrays(path, PICTURE_NAMES, LABEL_NAMES)
    labels_N = _checked_labels(labels, len(pictures) if pictures.ndim else 0, path)
    pictures_NCHW = _checked_pictures(pictures, path)
    names = check_labels(labels_N, classes, str(path))
    return Dataset(fit_array(pictures_NCHW, input_shape), labels_N, names)


def load_npz_pictures(path: Path) -> Pictures:
    """The pictures alone, uint8[N, C, H, W] in the size they have; labels need not be there.

    Raises:
        DataError: the file is damaged, or holds no such array.
    """
    (pictures,) = _arrays(path, PICTURE_NAMES)
    return _checked_pictures(pictures, path)


def _arrays(path: Path, *names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz archive, which is a zip file of arrays")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            _check_size(archive, path)
            return [_array(archive, several, path) for several in names]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise DataError(f"{path}: not a numpy archive of plain arrays: {error}") from error


def _check_size(archive: Any, path: Path) -> None:
    for member in archive.zip.infolist():
        if member.file_size > MAX_BYTES:
            raise DataError(f"{path}: {member.filename} unpacks to {member.file_size} bytes, at most {MAX_BYTES}")


def _array(archive: Any, names: tuple[str, ...], path: Path) -> npt.NDArray[Any]:
    for name in names:
        if name in archive.files:
            return np.asarray(archive[name])
    raise DataError(f"{path}: holds {', '.join(archive.files) or 'nothing'}, expected one of {', '.join(names)}")


def _checked_labels(labels: npt.NDArray[Any], pictures: int, path: Path) -> Labels:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels are {labels.dtype}{list(labels.shape)}, expected integers in one dimension")
    if len(labels) != pictures or not pictures:
        raise DataError(f"{path}: {len(labels)} labels for {pictures} pictures, expected as many, and at least one")
    return labels.astype(np.int64)


def _checked_pictures(pictures: npt.NDArray[Any], path: Path) -> Pictures:
    described = f"{path}: pictures are {pictures.dtype}{list(pictures.shape)}"
    if pictures.dtype != np.uint8 or pictures.ndim not in {3, 4} or 0 in pictures.shape:
        raise DataError(f"{described}, expected uint8[N, H, W], [N, H, W, C] or [N, C, H, W]")
    if pictures.ndim == 3:
        return pictures[:, None]
    if pictures.shape[1] in {1, 3}:
        return pictures
    if pictures.shape[3] in {1, 3}:
        return pictures.transpose(0, 3, 1, 2)
    raise DataError(f"{described}, expected 1 or 3 channels")
