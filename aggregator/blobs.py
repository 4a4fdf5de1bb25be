"""Bytes by their own SHA-256: updates, base models, global models, ONNX files.

A blob is written once and never changed: temporary file, fsync, rename, fsync of the folder. After a power cut a
name either holds exactly its content or does not exist.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final

from export.files import sync_folder, write_together

DIGEST_LENGTH: Final = 64


class BlobError(Exception):
    """A blob is missing or is not what its name says; the message names the file and what to do."""


class BlobReader:
    """A folder of content-addressed files, spread over 256 subfolders by the first two digits; looking changes nothing.

    So it may be the folder of an aggregator that runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the blob named by 64 lower-case hexadecimal digits lies, whether it exists or not.

        Raises:
            BlobError: not such a name.
        """
        if len(digest) != DIGEST_LENGTH or not set(digest) <= set("0123456789abcdef"):
            raise BlobError(f"blob {digest[:80]!r}: expected {DIGEST_LENGTH} lower-case hexadecimal digits")
        return self.folder / digest[:2] / digest

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def get(self, digest: str) -> bytes:
        """The content.

        Raises:
            BlobError: there is none, or it is damaged.
        """
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise BlobError(f"blob {digest} is not in {self.folder}: restore it from a backup") from None
        if sha256(data).hexdigest() != digest:
            raise BlobError(f"blob {path} is damaged, its content is not its name: restore it from a backup")
        return data


class Blobs(BlobReader):
    """The folder of the one process that writes there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*/.*"):
            leftover.unlink()

    def put(self, data: bytes) -> str:
        """Keep `data`; it is on disk when this returns.

        Returns:
            Its SHA-256 in hexadecimal.

        Raises:
            OSError: it could not be written; nothing is left behind.
        """
        digest = sha256(data).hexdigest()
        path = self.path(digest)
        if not _holds(path, data):
            path.parent.mkdir(exist_ok=True)
            write_together({path: data})
            sync_folder(self.folder)
        return digest


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is there and whole: a damaged one is healed by writing it again."""
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
