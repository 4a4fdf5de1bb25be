"""Reads what `torch.save` wrote, without torch, and without running anything that is in it.

Since torch 1.6 such a file is a zip archive, uncompressed: `…/data.pkl` is a pickle whose tensors are references to
storages, `…/data/0`, `…/data/1` and so on, the plain numbers.

A pickle is a program. This one may name just what a dictionary of tensors needs, `_ALLOWED`, and gets our own harmless
stand-ins for it; whatever else it names, a network's class or a shell, is refused by that name before anything is
called. torch's own `weights_only` does the same, with more than we need and 750 MB around it.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.foreign.found import Found, widened
from export.foreign.names import WRAPPERS

MAX_ELEMENTS: Final = 1 << 26
"""Of one tensor: the largest of a ResNet18 four times as wide as published has 38 million."""
MAX_AXES: Final = 8

_DAMAGE: Final = (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, struct.error)
"""What zipfile raises over damaged archives: seeking to nowhere, unknown versions, names in no encoding."""

_STORAGES: Final = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Stands for a class of storage."""

    dtype: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers in the archive."""

    key: str
    dtype: str


@dataclass(frozen=True, slots=True)
class _View:
    """Stands for a tensor: which numbers of a storage, in which order. Checked when it is read, not before."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_torch(path: Path) -> Found:
    """The tensors of a state dictionary, which may lie under one of `WRAPPERS`.

    Raises:
        ExportError: the file is damaged, older than torch 1.6, names something that is no tensor, or holds none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            return Found(_tensors(_unpickled(archive, f"{root}data.pkl"), _Reader(archive, root)), "torch checkpoint")
    except _DAMAGE as error:
        raise ExportError(
            f"no zip archive, as torch writes since 1.6 ({error}): damaged, or older; then load it with torch and save"
            " it again"
        ) from error


def _root(archive: zipfile.ZipFile) -> str:
    """The folder that everything lies in, with its slash."""
    pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise ExportError(f"{len(pickles)} entries named data.pkl: expected one, as torch.save writes it")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and _stored(archive, order) != b"little":
        raise ExportError("written on a big-endian machine: expected a little-endian one")
    return root


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes. None may be compressed: a small file could then become any size."""
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise ExportError(f"{name} is missing from the archive") from error
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ExportError(f"{name} is compressed or encrypted: expected it as torch.save stores it")
    return archive.read(info)


class _Restricted(pickle.Unpickler):
    """Resolves the names of `_ALLOWED` to stand-ins and no other."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _ALLOWED.get(f"{module}.{name}")
        if stand_in is None:
            raise ExportError(
                f"the pickle names {module}.{name}: expected tensors alone, as torch.save(model.state_dict()) writes"
            )
        return stand_in

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _Kind(dtype), str(key), _, _):
                return _Storage(key, dtype)
        raise ExportError(f"the pickle refers to {pid!r:.80}: expected a storage of numbers")


def _view(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    """In place of torch._utils._rebuild_tensor_v2; hooks and gradients do not matter."""
    return _View(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    """In place of torch._utils._rebuild_parameter."""
    return data


_ALLOWED: Final[dict[str, _Kind | Callable[..., Any]]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"torch.{name}": _Kind(dtype) for name, dtype in _STORAGES.items()},
}


def _unpickled(archive: zipfile.ZipFile, name: str) -> Any:
    data = _stored(archive, name)
    try:
        return _Restricted(BytesIO(data)).load()
    except ExportError:
        raise
    except Exception as error:  # a damaged pickle raises anything, from KeyError to MemoryError
        raise ExportError(f"{name} is a damaged pickle: {type(error).__name__}: {error}") from error


def _tensors(content: Any, reader: "_Reader") -> dict[str, npt.NDArray[Any]]:
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise ExportError(f"the file holds a {type(content).__name__}: expected a dictionary of tensors")
    found = {str(name): reader.read(str(name), value) for name, value in content.items() if isinstance(value, _View)}
    if not found:
        keys = ", ".join(str(key)[:40] for key in list(content)[:8])
        raise ExportError(f"no tensors among the keys {keys or '(none)'}: expected a state dictionary")
    return found


class _Reader:
    """Turns views into arrays of their own."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive, self._root = archive, root

    def read(self, name: str, view: _View) -> npt.NDArray[Any]:
        """The numbers a view shows, within its storage or not at all."""
        storage, shape, strides = view.storage, view.shape, view.strides
        if not isinstance(storage, _Storage) or not _is_view(view.offset, shape, strides):
            raise ExportError(
                f"tensor {name}: offset {view.offset!r:.20}, shape {shape!r:.40}, strides {strides!r:.40}"
            )
        data, wide = _stored(self._archive, f"{self._root}data/{storage.key}"), storage.dtype == "bfloat16"
        dtype = np.dtype("<u2" if wide else storage.dtype)
        numbers = np.frombuffer(data, dtype, count=len(data) // dtype.itemsize)
        last = view.offset + sum((edge - 1) * step for edge, step in zip(shape, strides, strict=True))
        if prod(shape) and last >= len(numbers):
            raise ExportError(f"tensor {name} reaches number {last} of a storage of {len(numbers)}")
        steps = [step * dtype.itemsize for step in strides]
        seen = np.lib.stride_tricks.as_strided(numbers[view.offset :], shape, steps, writeable=False)
        return widened(seen) if wide else seen.copy()


def _is_view(offset: Any, shape: Any, strides: Any) -> bool:
    if not (isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_AXES):
        return False
    whole = all(type(number) is int and number >= 0 for number in (offset, *shape, *strides))
    return whole and prod(shape) <= MAX_ELEMENTS
