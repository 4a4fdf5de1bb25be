"""Files that are either whole or not there: write beside, fsync, rename."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files of one folder.

    All are on the disk under temporary names before the first takes its place, so a full disk changes nothing.

    Raises:
        OSError: a file cannot be written; nothing is left behind.
    """
    with ExitStack() as undo:
        staged = {path: _stage(path, data, undo) for path, data in files.items()}
        for path, temporary in staged.items():
            temporary.replace(path)
        for folder in {path.parent for path in files}:
            sync_folder(folder)


def _stage(path: Path, data: bytes, undo: ExitStack) -> Path:
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        undo.callback(temporary.unlink, missing_ok=True)  # after the rename there is nothing left to remove
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    return temporary


def sync_folder(folder: Path) -> None:
    """Make the renames themselves last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
