"""IDX, the format of MNIST and its relatives (Y. LeCun, C. Cortes, C. Burges, "The MNIST database").

Layout, big-endian: two zero bytes, a type byte (0x08 for uint8), the number of dimensions, each dimension as uint32,
then the values. Files may be gzipped.
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from edge.data.classes import Classes, check_labels
from edge.data.dataset import DataError, Dataset
from edge.data.fit import fit_array
from protocol.architecture import Shape

MAX_BYTES: Final = 1 << 31
"""Forty times MNIST; a header that asks for more is damaged or hostile."""

_PARTS: Final = ("train", "t10k")
"""The parts a set is published in, the one to train on first."""


def has_idx(folder: Path) -> bool:
    """Whether a folder holds IDX pictures."""
    return _find_part(folder) is not None


def load_idx(folder: Path, *, input_shape: Shape, classes: Classes) -> Dataset:
    """The pictures and labels of a folder of IDX files; the training part where both parts are there.

    Raises:
        DataError: a file is missing, cut short, or not what its name says; or the two do not belong together.
    """
    part = _find_part(folder)
    if part is None:
        raise DataError(f"{folder}: expected train-images-idx3-ubyte or t10k-images-idx3-ubyte, also as .gz")
    pictures_path, labels_path = _find(folder, f"{part}-images-idx3-ubyte"), _find(folder, f"{part}-labels-idx1-ubyte")
    if pictures_path is None or labels_path is None:
        raise DataError(f"{folder}: {part} pictures have no {part}-labels-idx1-ubyte beside them")
    pictures_NHW, labels_N = read_idx(pictures_path, 3), read_idx(labels_path, 1).astype(np.int64)
    if len(pictures_NHW) != len(labels_N):
        raise DataError(f"{labels_path}: {len(labels_N)} labels for {len(pictures_NHW)} pictures")
    names = check_labels(labels_N, classes, str(labels_path))
    return Dataset(fit_array(pictures_NHW[:, None], input_shape), labels_N, names)


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """One IDX file of unsigned bytes. What it declares is checked before anything of that size is allocated.

    Raises:
        DataError: wrong magic, more or fewer bytes than declared, or a damaged gzip stream.
    """
    try:
        with _opened(path) as file:
            shape = _read_shape(file, path, dimensions)
            size = prod(shape)
            if path.suffix != ".gz" and path.stat().st_size != 4 + 4 * dimensions + size:
                raise DataError(f"{path}: {path.stat().st_size} bytes, expected {4 + 4 * dimensions + size}")
            # gzip hands out what it can unpack, so a stream that is cut short never fills a declared size.
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(data) != size:
        raise DataError(f"{path}: {'more' if len(data) > size else len(data)} bytes of values, expected {size}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read_shape(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    header = file.read(4 + 4 * dimensions)
    magic = bytes((0, 0, 8, dimensions))
    if len(header) != 4 + 4 * dimensions or header[:4] != magic:
        raise DataError(f"{path}: begins with {header[:4].hex()}, expected {magic.hex()}")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape or prod(shape) > MAX_BYTES:
        raise DataError(f"{path}: declares {'×'.join(map(str, shape))} values, expected 1 to {MAX_BYTES}")
    return shape


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")


def _find_part(folder: Path) -> str | None:
    return next((part for part in _PARTS if _find(folder, f"{part}-images-idx3-ubyte")), None)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
