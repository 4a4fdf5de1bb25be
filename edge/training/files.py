"""Tensors and results as `.npz` files between the agent and its trainer; there is no torch in it."""

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.files import write_atomic
from edge.training.task import Report, TrainerError, TrainingResult
from protocol.architecture import Tensors

_REPORT: Final = "report"
"""Tensor names have a dot in them, so this cannot be one."""


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors by name; the file appears whole or not at all.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    _write(path, dict(tensors))


def read_tensors(path: Path) -> Tensors:
    """Read tensors by name.

    Raises:
        TrainerError: the file is missing or damaged.
    """
    return {name: value.astype(np.float32) for name, value in _read(path).items()}


def write_result(path: Path, result: TrainingResult) -> None:
    """Write an update and its report; errors as for `write_tensors`."""
    _write(path, {**result.tensors, _REPORT: np.array(json.dumps(asdict(result.report)))})


def read_result(path: Path) -> TrainingResult:
    """Read an update and its report.

    Raises:
        TrainerError: the file is missing or damaged.
    """
    arrays = _read(path)
    try:
        report = Report(**json.loads(str(arrays.pop(_REPORT))))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainerError(f"{path}: no report of a training result: {error}") from error
    return TrainingResult(arrays, report)


def _write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]  # a name could be savez's own flag; ours have dots
    write_atomic(path, archive.getvalue())


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        # Opened here, since numpy leaves a file open that turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainerError(f"{path}: cannot be read as tensors: {error}") from error
