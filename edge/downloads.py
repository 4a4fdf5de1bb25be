"""Blobs from the aggregator, by their SHA-256: resumed after a break, verified before anyone sees them (BF-022)."""

import errno
import random
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final

import urllib3

from edge.backoff import delays_s
from edge.files import sync_folder, write_atomic

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
"""Without a single byte for so long the connection is dead."""
ATTEMPTS: Final = 8
BLOCK_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class DownloadError(Exception):
    """A blob could not be fetched; the message names digest, reason and, if it helps, sizes."""


class _Broken(Exception):
    """This attempt failed; the next may not."""


class Downloads:
    """Fetches blobs into a folder.

    Args:
        folder: made if it is not there; holds `<hex>` when whole, `<hex>.part` before.
        url: of the aggregator.
        http: the connections to use.
        rng: for the jitter of the back-off.

    Attributes:
        stop: when set, the attempt under way is given up and no other made.
        received_bytes: since this object was made.
    """

    def __init__(self, folder: Path, url: str, http: urllib3.PoolManager, rng: random.Random | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._url, self._http = folder, url.rstrip("/"), http
        self._rng = rng or random.Random()
        self.stop = threading.Event()
        self.received_bytes = 0

    def fetch(self, digest: bytes, size_bytes: int) -> Path:
        """The blob of this digest and size, from the folder if it is there already.

        Raises:
            DownloadError: refused, never whole after `ATTEMPTS` attempts, not the promised bytes, or no room.
        """
        path = self._folder / digest.hex()
        if path.exists() and _digest(path) == digest:
            return path
        part = path.with_name(f"{path.name}.part")
        reason = "stopped"
        for delay_s, _ in zip(delays_s(self._rng), range(ATTEMPTS), strict=False):
            try:
                self._resume(part, size_bytes)
                _check(part, digest, size_bytes)
            except _Broken as error:
                reason = str(error)
            except OSError as error:
                raise DownloadError(f"blob {digest.hex()}: {_disk(error)}, {size_bytes} bytes needed") from error
            else:
                part.replace(path)
                sync_folder(self._folder)
                return path
            if self.stop.wait(delay_s):
                break
        raise DownloadError(f"blob {digest.hex()} of {size_bytes} bytes from {self._url}: {reason}")

    def held(self) -> dict[bytes, Path]:
        """The blobs that are here, whole and undamaged, by digest."""
        named = [path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)]
        return {digest: path for path in named if (digest := bytes.fromhex(path.name)) == _digest(path)}

    def keep(self, digest: bytes, data: bytes) -> None:
        """Put a blob here that was not fetched.

        Raises:
            DownloadError: it is not what its name says.
            OSError: the disk is full.
        """
        if sha256(data).digest() != digest:
            raise DownloadError(f"blob {digest.hex()}: {len(data)} bytes with another SHA-256")
        write_atomic(self._folder / digest.hex(), data)

    def forget_all_but(self, keep: set[bytes]) -> None:
        """Remove every blob whose digest is not in `keep`, whole or in part."""
        names = {digest.hex() for digest in keep}
        for path in self._folder.iterdir():
            if path.name.removesuffix(".part") not in names:
                path.unlink()

    def _resume(self, part: Path, size_bytes: int) -> None:
        """Append what is missing to `part`."""
        held = part.stat().st_size if part.exists() else 0
        if held >= size_bytes:
            return
        url = f"{self._url}/api/v1/blobs/{part.name.removesuffix('.part')}"
        try:
            answer = self._http.request(
                "GET",
                url,
                headers={"Range": f"bytes={held}-"} if held else {},
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
                retries=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _Broken(f"not reachable ({error})") from error
        try:
            resumed = _accepted(answer, held, size_bytes)
            with part.open("ab" if resumed else "wb") as file:
                for block in self._blocks(answer):
                    file.write(block)
        finally:
            answer.close()  # never back to the pool: the rest of a broken answer would be the next one's head

    def _blocks(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        stream = answer.stream(BLOCK_BYTES, decode_content=False)
        while not self.stop.is_set():
            try:
                block = next(stream, b"")
            except urllib3.exceptions.HTTPError as error:
                raise _Broken(f"connection broke ({error})") from error
            if not block:
                return
            self.received_bytes += len(block)
            yield block


def _accepted(answer: urllib3.BaseHTTPResponse, held: int, size_bytes: int) -> bool:
    """Whether the answer continues at `held`; a plain 200 begins at zero.

    The HTTP library reads no more than the length declared here, so nothing beyond the announced size is stored.
    """
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        found, expected = answer.headers.get("Content-Range", ""), f"bytes {held}-{size_bytes - 1}/{size_bytes}"
    elif answer.status == HTTPStatus.OK:
        found, expected = answer.headers.get("Content-Length", ""), str(size_bytes)
    else:
        raise _refusal(answer)
    if found != expected:
        raise DownloadError(f"{answer.geturl()}: has length {found or 'unknown'!r}, expected {expected!r}")
    return answer.status == HTTPStatus.PARTIAL_CONTENT


def _refusal(answer: urllib3.BaseHTTPResponse) -> Exception:
    if answer.status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT} or answer.status >= 500:
        return _Broken(f"answered {answer.status}")
    return DownloadError(f"{answer.geturl()}: answered {answer.status}, expected 200 or 206")


def _check(part: Path, digest: bytes, size_bytes: int) -> None:
    held = part.stat().st_size
    if held < size_bytes:
        raise _Broken(f"{held} of {size_bytes} bytes arrived")
    found = _digest(part)
    if found != digest:
        part.unlink()  # begin again: which of the bytes are wrong cannot be known
        raise _Broken(f"arrived with SHA-256 {found.hex()}")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        total = sha256()
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.digest()


def _disk(error: OSError) -> str:
    return "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else str(error)
