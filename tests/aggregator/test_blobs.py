"""Blobs: whole or not there."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from aggregator.blobs import BlobError, Blobs


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_put_comes_back_by_its_digest(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = blobs.put(b"content")
    assert digest == sha256(b"content").hexdigest()
    assert digest in blobs
    assert blobs.get(digest) == b"content"
    assert Blobs(tmp_path / "blobs").path(digest).read_bytes() == b"content"


def test_the_same_content_is_not_written_twice(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    path = blobs.path(blobs.put(b"content"))
    before = path.stat()
    blobs.put(b"content")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    digest = sha256(b"absent").hexdigest()
    assert digest not in Blobs(tmp_path)
    with pytest.raises(BlobError, match=digest):
        Blobs(tmp_path).get(digest)


def test_a_damaged_blob_is_refused_and_healed_by_putting_it_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"content")
    blobs.path(digest).write_bytes(b"contenT")
    with pytest.raises(BlobError, match="damaged"):
        blobs.get(digest)
    blobs.put(b"content")
    assert blobs.get(digest) == b"content"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65])
def test_a_name_that_is_no_digest_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobError, match="hexadecimal"):
        Blobs(tmp_path).path(name)


FILL = """
import resource, signal, sys
from pathlib import Path
from aggregator.blobs import Blobs

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    Blobs(Path(sys.argv[1])).put(bytes(5000))
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """In a child process, because a limit on file sizes cannot be lifted again."""
    child = subprocess.run([sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True, check=True)
    assert child.stdout == "File too large\n"
    assert files(tmp_path) == []


def test_leftovers_of_a_killed_writer_are_removed_at_start(tmp_path: Path) -> None:
    Blobs(tmp_path).put(b"content")
    (next(tmp_path.iterdir()) / ".leftover.abc").write_bytes(b"half")
    Blobs(tmp_path)
    assert [path.name for path in files(tmp_path)] == [sha256(b"content").hexdigest()]
