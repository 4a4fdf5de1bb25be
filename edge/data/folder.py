"""A folder of class folders of pictures: `pictures/cat/0001.jpg`."""

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edge.data.classes import Classes, index_names
from edge.data.dataset import DataError, Dataset
from edge.data.fit import fit_picture, mode_for
from protocol.architecture import Shape

MAX_PIXELS: Final = 64_000_000
"""Of one picture, 256 MB once unpacked: above any camera of a device like this, below what would exhaust it."""


def load_folder(folder: Path, *, input_shape: Shape, classes: Classes) -> Dataset:
    """Every picture of every class folder, in sorted order. Hidden files are passed over.

    Raises:
        DataError: there are no class folders or no readable picture in them.
    """
    mode_for(input_shape)
    class_folders = [path for path in _visible(folder) if path.is_dir() and _visible(path)]
    if not class_folders:
        raise DataError(f"{folder}: expected one folder of pictures for each class, or IDX files")
    names, index = index_names([path.name for path in class_folders], classes, str(folder))
    pictures, labels, skipped = [], [], []
    for path in (file for class_folder in class_folders for file in _visible(class_folder)):
        try:
            pictures.append(read_picture(path, input_shape))
            labels.append(index[path.parent.name])
        except DataError as error:
            skipped.append(str(error))
    if not pictures:
        raise DataError(f"{folder}: none of {len(skipped)} files is a readable picture; the first: {skipped[0]}")
    return Dataset(np.stack(pictures), np.array(labels, dtype=np.int64), names, tuple(skipped))


def class_names(folder: Path, classes: int) -> tuple[str, ...] | None:
    """What a folder of class folders calls the fleet's classes; None where it does not say."""
    try:
        found = [path.name for path in _visible(folder) if path.is_dir() and _visible(path)]
        return index_names(found, classes, str(folder))[0]
    except (DataError, OSError):
        return None


def read_picture(path: Path, input_shape: Shape) -> npt.NDArray[np.uint8]:
    """One picture, upright as its camera says, as uint8[C, H, W].

    Raises:
        DataError: it is no picture, is damaged or too large.
    """
    try:
        # Pillow warns between its limit and twice that, where our own limit decides, and of tags that nobody asks for.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path}: {picture.width}×{picture.height} pixels, expected at most {MAX_PIXELS}")
            return fit_picture(ImageOps.exif_transpose(picture), input_shape)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture in a format that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, SyntaxError, RuntimeError, MemoryError) as error:
        # A broken PNG chunk is a SyntaxError to Pillow, a header ValueError, AVIF RuntimeError, JPEG 2000 MemoryError.
        raise DataError(f"{path}: damaged picture: {error}") from error


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
