"""Where pictures come from: each with a name, read only when its turn has come and in the size then asked for."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from edge.data import DataError
from edge.data.fit import fit_array, fit_picture
from edge.data.folder import read_picture
from edge.data.npz import load_npz_pictures
from edge.inference.frames import FrameFormat, TruncatedFrame, read_frames
from protocol.architecture import Shape

STANDARD_INPUT: Final = Path("-")


class Read(Protocol):
    """Reads one picture."""

    def __call__(self, input_shape: Shape, /) -> npt.NDArray[np.uint8]:
        """The picture as uint8[C, H, W].

        Raises:
            DataError: it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """A picture that may be read."""

    name: str
    read: Read


@dataclass(frozen=True, slots=True)
class Source:
    """Pictures one after another.

    Attributes:
        items: to be gone through once.
        total: how many, None for a stream.
    """

    items: Iterator[Item]
    total: int | None


def stored(paths: list[Path]) -> Source:
    """Files, folders with all that is below them, and `.npz` archives; what cannot be read is an item that says so."""
    parts = [_part(path) for path in paths]
    return Source(chain.from_iterable(items for items, _ in parts), sum(total for _, total in parts))


def streamed(path: Path, frame_format: FrameFormat) -> Source:
    """Raw frames from a pipe or a file, `-` for standard input.

    Raises:
        OSError: it cannot be opened.
    """
    stream = FileIO(0, closefd=False) if path == STANDARD_INPUT else FileIO(path)
    return Source(_frames(stream, frame_format), None)


def _frames(stream: FileIO, frame_format: FrameFormat) -> Iterator[Item]:
    number = 0
    try:
        for number, frame in enumerate(read_frames(stream, frame_format.frame_bytes), 1):
            yield Item(f"frame {number - 1}", partial(fit_picture, frame_format.picture(frame)))
    except TruncatedFrame as error:
        yield _unreadable(f"frame {number}", error)
    except OSError as error:
        yield _unreadable(f"frame {number}", DataError(f"frame {number}: {error.strerror}"))
    finally:
        stream.close()


def _part(path: Path) -> tuple[Iterator[Item], int]:
    try:
        kind = path.stat().st_mode
    except OSError as error:
        return iter([_unreadable(str(path), DataError(f"{path}: {error.strerror}"))]), 1
    if stat.S_ISDIR(kind):
        items = list(_below(path))
        return iter(items), len(items)
    return _archived(path) if path.suffix == ".npz" else (iter([_file(path)]), 1)


def _below(folder: Path) -> Iterator[Item]:
    """Visible files in the order of their names; a folder that may not be read is one item."""
    refused: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=refused.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (_file(Path(place, name)) for name in sorted(files) if not name.startswith("."))
    for error in refused:
        yield _unreadable(str(error.filename), DataError(f"{error.filename}: {error.strerror}"))


def _archived(path: Path) -> tuple[Iterator[Item], int]:
    try:
        pictures_NCHW = load_npz_pictures(path)
    except DataError as error:
        return iter([_unreadable(str(path), error)]), 1
    items = (
        Item(f"{path}[{number}]", partial(_fit_one, picture_CHW)) for number, picture_CHW in enumerate(pictures_NCHW)
    )
    return items, len(pictures_NCHW)


def _file(path: Path) -> Item:
    return Item(str(path), partial(_read_file, path))


def _fit_one(picture_CHW: npt.NDArray[np.uint8], input_shape: Shape) -> npt.NDArray[np.uint8]:
    return fit_array(picture_CHW[None], input_shape)[0]


def _read_file(path: Path, input_shape: Shape) -> npt.NDArray[np.uint8]:
    # To open a pipe would wait for whoever writes to it.
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file; raw frames need --frames")
    return read_picture(path, input_shape)


def _unreadable(name: str, error: DataError) -> Item:
    def read(_: Shape, /) -> npt.NDArray[np.uint8]:
        raise error

    return Item(name, read)
