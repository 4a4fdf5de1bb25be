"""Pictures to check a model on: an .npz file, a folder of class folders, or made up when there are none.

The exporter cannot borrow the agent's loader, which lives above another branch of the house; it needs less of it.
"""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from export.arithmetic import UInt8
from export.errors import ExportError
from protocol.architecture import Architecture, Shape

SYNTHETIC_COUNT: Final = 64
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
MAX_PICTURES: Final = 100_000
"""A check on more tells nothing new."""

_PICTURE_KEYS: Final = ("pictures", "images", "x")
_LABEL_KEYS: Final = ("labels", "y")


@dataclass(frozen=True, slots=True)
class Pictures:
    """uint8[N, C, H, W], their classes int64[N] if known, and where they come from."""

    pictures_NCHW: UInt8 = field(repr=False)
    labels_N: npt.NDArray[np.int64] | None = field(repr=False)
    source: str


def chosen(source: Path | None, architecture: Architecture) -> Pictures:
    """Those of `load_pictures`, or made-up ones without a source.

    Raises:
        ExportError: nothing in there fits.
    """
    return synthetic(architecture) if source is None else load_pictures(source, architecture)


def synthetic(architecture: Architecture) -> Pictures:
    """Made-up pictures, always the same: blocks of 4×4 pixels under noise, so that filters have edges to find."""
    rng = np.random.default_rng(0)
    channels, height, width = architecture.input_shape
    coarse = rng.integers(0, 192, (SYNTHETIC_COUNT, channels, -(-height // 4), -(-width // 4)), dtype=np.uint8)
    blocks = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width]
    noise = rng.integers(0, 64, blocks.shape, dtype=np.uint8)
    return Pictures(blocks + noise, None, f"{SYNTHETIC_COUNT} synthetic pictures")


def load_pictures(source: Path, architecture: Architecture) -> Pictures:
    """Read pictures of the network's input shape.

    Args:
        source: an .npz file with `pictures` (uint8, [N, C, H, W]) and perhaps `labels`, or a folder with one folder
            of pictures per class; those are converted to the network's channels and size.
        architecture: the network.

    Raises:
        ExportError: nothing in there fits.
    """
    if source.is_dir():
        return _from_folder(source, architecture)
    if not source.exists():
        raise ExportError(f"{source}: no such file or folder")
    return _from_npz(source, architecture)


def _from_npz(source: Path, architecture: Architecture) -> Pictures:
    try:
        with np.load(source, allow_pickle=False) as arrays:
            pictures = _first_of(arrays, _PICTURE_KEYS)
            labels = _first_of(arrays, _LABEL_KEYS)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ExportError(f"{source} is no .npz file of arrays: {error}") from error
    if pictures is None:
        raise ExportError(f"{source} holds no array named {' or '.join(_PICTURE_KEYS)}")
    if pictures.ndim == 3:
        pictures = pictures[:, None]
    wanted = f"uint8[N, {', '.join(map(str, architecture.input_shape))}]"
    if pictures.dtype != np.uint8 or pictures.shape[1:] != architecture.input_shape or not len(pictures):
        raise ExportError(f"{source}: pictures are {pictures.dtype}{list(pictures.shape)}, expected {wanted}")
    if labels is not None and (labels.shape != pictures.shape[:1] or labels.dtype.kind not in "iu"):
        raise ExportError(f"{source}: labels are {labels.dtype}{list(labels.shape)}, expected one integer per picture")
    labels_N = None if labels is None else labels[:MAX_PICTURES].astype(np.int64)
    return Pictures(pictures[:MAX_PICTURES], labels_N, str(source))


def _first_of(arrays: Any, keys: tuple[str, ...]) -> npt.NDArray[Any] | None:
    return next((arrays[key] for key in keys if key in arrays), None)


def _from_folder(source: Path, architecture: Architecture) -> Pictures:
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    files = [(path, label) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())]
    files = [(path, label) for path, label in files if path.suffix.lower() in SUFFIXES][:MAX_PICTURES]
    if not files:
        raise ExportError(f"{source}: no pictures in folders of classes, expected for example {source}/cat/1.png")
    pictures_NCHW = np.stack([_read(path, architecture.input_shape) for path, _ in files])
    # Class folders name the logits in sorted order only when all classes are there.
    complete = len(classes) == architecture.classes
    labels_N = np.array([label for _, label in files], np.int64) if complete else None
    return Pictures(pictures_NCHW, labels_N, str(source))


def _read(path: Path, shape: Shape) -> UInt8:
    channels, height, width = shape
    if channels not in {1, 3}:
        raise ExportError(
            f"{path}: a picture file has 1 or 3 channels, the network reads {channels}: give an .npz file"
        )
    try:
        with Image.open(path) as picture:
            fitted = picture.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ExportError(f"{path}: not a readable picture: {error}") from error
    return np.asarray(fitted, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)
