"""Updates on disk before they are sent: what the broker acknowledges may still be lost, what lies here is not.

One file an update, `<task>.update`: the SHA-256 of the rest, then one msgpack map {1: shard, 2: manifest map,
3: payload}. A file is there whole or not at all, and only the aggregator's signed receipt removes it.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgpack

from edge.files import remove, set_aside, write_atomic
from protocol.errors import ProtocolError
from protocol.messages import Manifest
from protocol.schema import from_map, to_map

_SUFFIX: Final = ".update"
_DIGEST_BYTES: Final = 32
_SHARD, _MANIFEST, _PAYLOAD = 1, 2, 3


class OutboxFull(Exception):
    """No room for an update, by the quota or on the disk; nothing was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An update that waits for its receipt."""

    shard: str
    manifest: Manifest
    payload: bytes

    @property
    def task(self) -> str:
        """The task it answers."""
        return self.manifest.task


class Outbox:
    """The updates of one folder.

    Args:
        folder: made if it is not there.
        quota_bytes: all updates together never take more.
        on_damaged: told once about each file that had to be set aside.
    """

    def __init__(self, folder: Path, quota_bytes: int, *, on_damaged: Callable[[str], None] = lambda _: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._quota_bytes, self._on_damaged = folder, quota_bytes, on_damaged

    def put(self, entry: Entry) -> None:
        """Keep an update, durably when this returns; one of the same task is replaced.

        Raises:
            OutboxFull: over the quota, or the disk is full. What was there before is untouched.
        """
        path = self._path(entry.task)
        body = msgpack.packb({_SHARD: entry.shard, _MANIFEST: to_map(entry.manifest), _PAYLOAD: entry.payload})
        held = sum(other.stat().st_size for other in self._files() if other != path)
        size = len(body) + _DIGEST_BYTES
        if held + size > self._quota_bytes:
            raise OutboxFull(
                f"outbox {self._folder}: {size} bytes for task {entry.task} beside {held} bytes held,"
                f" expected at most {self._quota_bytes} together (outbox_quota_bytes)"
            )
        try:
            write_atomic(path, sha256(body).digest(), body)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise OutboxFull(
                f"outbox {self._folder}: no room on the disk for {size} bytes ({error.strerror})"
            ) from error

    def pending(self) -> Iterator[Entry]:
        """Updates without a receipt, oldest first, each checked; a damaged one is set aside and not sent."""
        for path in self._files():
            try:
                yield _read(path.read_bytes())
            except ValueError as error:
                aside = set_aside(path)
                self._on_damaged(f"outbox file {path}: {error}; kept as {aside.name}, not sent")

    def get(self, task: str) -> Entry | None:
        """The update of `task`, None when there is none."""
        return next((entry for entry in self.pending() if entry.task == task), None)

    def remove(self, task: str) -> None:
        """Forget the update of `task`. Only for a caller that holds the aggregator's signed receipt."""
        remove(self._path(task))

    def _path(self, task: str) -> Path:
        return self._folder / f"{task}{_SUFFIX}"

    def _files(self) -> list[Path]:
        files = self._folder.glob(f"[!.]*{_SUFFIX}")
        return sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name))


def _read(data: bytes) -> Entry:
    """The entry in a file. Raises ValueError when it is not the file that was written."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if sha256(body).digest() != digest:
        raise ValueError(f"{len(data)} bytes whose checksum does not match")
    try:
        values = msgpack.unpackb(body, strict_map_key=False)
        return Entry(values[_SHARD], from_map(Manifest, values[_MANIFEST]), values[_PAYLOAD])
    except (ProtocolError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"written by another version: {error}") from error
