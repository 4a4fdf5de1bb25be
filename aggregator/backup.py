"""A fleet's truth in one file, taken while the aggregator runs, and put back into an empty folder.

The file is a tar archive, gzipped where its name says so: the database as it was at one moment (SQLite's own online
backup), then every blob and secret, and last `backup.json` with the SHA-256 of each. Blobs are never changed, so those
that the database names are there whole. It holds the keys of the fleet: like them it is for its owner alone.
"""

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Final

from aggregator import state_dir
from aggregator.secret_files import OWNER_ONLY
from aggregator.store import BOOT, Fact, Store
from export.files import sync_folder

INDEX: Final = "backup.json"
FORMAT: Final = 1
LEFT_OUT: Final = frozenset({"lock", state_dir.ENDPOINT, "broker", "page"})
"""What belongs to a running process and is made anew."""

Progress = Callable[[int, int], None]
"""Called with files done and files in all."""


class BackupError(Exception):
    """A backup cannot be written or put back; the message names the file and what to do."""


def back_up(state: Path, target: Path, progress: Progress) -> int:
    """Write a backup of a state directory, which may be in use.

    Returns:
        How many files it holds.

    Raises:
        BackupError: there is no fleet in the directory.
        OSError: it cannot be written; nothing is left behind.
    """
    database = state / state_dir.DATABASE
    if not database.is_file():
        raise BackupError(f"state directory {state} holds no {state_dir.DATABASE}: expected that of an aggregator")
    part = target.with_name(f".{target.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
            snapshot = Path(folder) / state_dir.DATABASE
            with closing(sqlite3.connect(database)) as live, closing(sqlite3.connect(snapshot)) as copy:
                live.backup(copy)
            members = [(snapshot, state_dir.DATABASE), *_members(state)]
            part.touch(OWNER_ONLY)
            with part.open("wb") as file:
                _write(file, _gzipped(target), members, progress)
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)
    return len(members)


def _gzipped(path: Path) -> bool:
    return path.suffix in {".gz", ".tgz"}


def _members(state: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(state.rglob("*")):
        name = path.relative_to(state)
        passing = path.name.startswith(".") or name.parts[0].startswith(state_dir.DATABASE)
        if path.is_file() and not passing and name.parts[0] not in LEFT_OUT:
            yield path, str(name)


def _write(file: IO[bytes], gzipped: bool, members: list[tuple[Path, str]], progress: Progress) -> None:
    digests = {}
    with tarfile.open(fileobj=file, mode="w:gz" if gzipped else "w") as archive:
        for done, (path, name) in enumerate(members):
            progress(done, len(members))
            with path.open("rb") as source:
                digests[name] = file_digest(source, "sha256").hexdigest()
            archive.add(path, name)
        index = json.dumps({"format": FORMAT, "made_at": time.time(), "files": digests}).encode()
        entry = tarfile.TarInfo(INDEX)
        entry.size = len(index)
        archive.addfile(entry, io.BytesIO(index))
    progress(len(members), len(members))


def put_back(source: Path, state: Path, progress: Progress) -> int:
    """Make a state directory from a backup.

    The count of starts leaps ahead to the clock's seconds: devices have heard of starts after the backup, and believe
    nothing that seems older.

    Returns:
        How many files it holds.

    Raises:
        BackupError: the archive is no backup, damaged or incomplete, or the directory is not empty.
        StoreError: its database is of a schema that this version cannot read.
        OSError: it cannot be written; nothing is left behind.
    """
    if state.exists() and any(state.iterdir()):
        raise BackupError(f"state directory {state} is not empty: move it away, or restore into another one")
    fresh = state.with_name(f".{state.name}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        files = _unpack(source, fresh, progress)
        _leap(fresh / state_dir.DATABASE)
        if state.exists():
            state.rmdir()
        fresh.rename(state)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    sync_folder(state.parent)
    return files


def _unpack(source: Path, folder: Path, progress: Progress) -> int:
    found: dict[str, str] = {}
    try:
        with tarfile.open(source) as archive:
            members = archive.getmembers()
            for done, member in enumerate(members):
                progress(done, len(members))
                archive.extract(member, folder, filter="data")
                found[member.name] = sha256((folder / member.name).read_bytes()).hexdigest()
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise
        raise BackupError(f"backup {source}: not a whole archive: {error}") from error
    progress(len(members), len(members))
    found.pop(INDEX, None)
    expected = _index(source, folder / INDEX)
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise BackupError(
            f"backup {source}: {wrong[0]} is missing or damaged, {len(wrong)} of {len(expected)} files are"
        )
    return len(found)


def _index(source: Path, path: Path) -> dict[str, str]:
    try:
        index = json.loads(path.read_text())
        path.unlink()
        form, files = index["format"], dict(index["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(
            f"backup {source}: no readable {INDEX} at its end: it is none of ours, or cut short"
        ) from error
    if form != FORMAT:
        raise BackupError(f"backup {source} has format {form}: this version reads {FORMAT}")
    return files


def _leap(database: Path) -> None:
    store = Store(database)
    try:
        with store.transaction() as session:
            session.merge(Fact(name=BOOT, value=str(int(time.time())).encode()))
    finally:
        store.close()
