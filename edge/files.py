"""Files that are either the old ones or the new ones, whenever the power fails."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class AlreadyRunning(Exception):
    """Another agent works in the same folder."""


def write_atomic(path: Path, *pieces: bytes, mode: int = 0o600) -> None:
    """Write `pieces` one after another as the new content of `path`: write, fsync, rename, fsync of the folder.

    Raises:
        OSError: nothing was changed and nothing half-written was left behind, for example when the disk is full.
    """
    partial = partial_of(path)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """Where the new content of `path` grows; what a kill left there is overwritten by the next write."""
    return path.with_name(f".{path.name}.partial")


def remove(path: Path) -> None:
    """Remove `path` for good; it need not exist."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def set_aside(path: Path) -> Path:
    """Move a damaged file out of the way, to be looked at by a person, and say where it is now."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    sync_folder(path.parent)
    return aside


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold `lock` for the block; the kernel lets go of it however this process ends.

    Raises:
        AlreadyRunning: another process holds it.
    """
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"{lock.parent}: another agent is at work here; stop it, or set another state_dir"
            ) from error
        yield
