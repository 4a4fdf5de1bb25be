"""Opens a checkpoint by what it is: a torch file, safetensors, a numpy archive or an ONNX model."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from numpy.lib.npyio import NpzFile

from export.errors import ExportError
from export.foreign.found import Found
from export.foreign.onnx_file import read_onnx
from export.foreign.safetensors_file import read_safetensors
from export.foreign.torch_file import read_torch


def _read_npz(path: Path) -> Found:
    try:
        with path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as archive:
            return Found({name: archive[name] for name in archive.files}, "numpy archive")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ExportError(f"no .npz file of arrays: {error}") from error


READERS: Final[dict[str, Callable[[Path], Found]]] = {
    ".npz": _read_npz,
    ".onnx": read_onnx,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".ckpt": read_torch,
    ".tar": read_torch,
    ".safetensors": read_safetensors,
}
"""By suffix; `.tar` is what many training scripts call a file of `torch.save`."""


def read_checkpoint(path: Path) -> Found:
    """Read a foreign file. Nothing in it is ever run.

    Raises:
        ExportError: it is damaged, of an unknown kind, or holds more than arrays.
        OSError: it cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ExportError(f"{path} ends in {path.suffix!r}: expected one of {', '.join(READERS)}")
    with path.open("rb"):  # a missing file is named by the operating system, whatever the reader would say
        pass
    try:
        return reader(path)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
