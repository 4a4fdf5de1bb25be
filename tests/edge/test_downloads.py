"""Blobs arrive whole or not at all, over a server that breaks in every way it can."""

import random
import re
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
from edge_support import Hasty, reply, serving

from edge.downloads import ATTEMPTS, DownloadError, Downloads

BLOB = random.Random(0).randbytes(300_000)
DIGEST = sha256(BLOB).digest()


class Server:
    """Serves `BLOB` with ranges, breaking off after `piece` bytes as long as `breaks` lasts."""

    def __init__(self, piece: int = 0, breaks: int = 0, *, ranges: bool = True, blob: bytes = BLOB) -> None:
        self.piece, self.breaks, self.ranges, self.blob = piece, breaks, ranges, blob
        self.asked: list[str] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.asked.append(asked)
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        begin = int(match[1]) if match and self.ranges else 0
        body, size = self.blob[begin:], len(self.blob)
        if begin:
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.breaks:
            self.breaks -= 1
            body = body[: self.piece]
        request.wfile.write(body)


def fetch(folder: Path, server: Callable[[BaseHTTPRequestHandler], None], size: int = len(BLOB)) -> bytes:
    with serving(server) as url, urllib3.PoolManager() as http:
        return Downloads(folder, url, http, Hasty()).fetch(DIGEST, size).read_bytes()


def test_a_blob_arrives_and_is_not_asked_for_again(tmp_path: Path) -> None:
    server = Server()
    assert fetch(tmp_path, server) == BLOB
    assert fetch(tmp_path, server) == BLOB
    assert server.asked == [""]


def test_a_break_is_resumed_where_it_was(tmp_path: Path) -> None:
    server = Server(piece=100_000, breaks=2)
    assert fetch(tmp_path, server) == BLOB
    assert server.asked == ["", "bytes=100000-", "bytes=200000-"]


def test_a_restart_of_the_agent_resumes_too(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST.hex()}.part").write_bytes(BLOB[:1234])
    server = Server()
    assert fetch(tmp_path, server) == BLOB
    assert server.asked == ["bytes=1234-"]


def test_a_server_without_ranges_begins_anew(tmp_path: Path) -> None:
    assert fetch(tmp_path, Server(piece=1000, breaks=1, ranges=False)) == BLOB


def test_received_bytes_are_counted_as_they_came(tmp_path: Path) -> None:
    with serving(Server(piece=1000, breaks=1)) as url, urllib3.PoolManager() as http:
        downloads = Downloads(tmp_path, url, http, Hasty())
        downloads.fetch(DIGEST, len(BLOB))
        assert downloads.received_bytes == len(BLOB)


def test_wrong_bytes_are_never_used(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="arrived with SHA-256"):
        fetch(tmp_path, Server(blob=BLOB[::-1]))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_thrown_away_and_fetched_again(tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST.hex()}.part").write_bytes(b"x" * 1234)
    assert fetch(tmp_path, Server()) == BLOB


def test_a_damaged_blob_in_the_folder_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / DIGEST.hex()).write_bytes(b"x")
    assert fetch(tmp_path, Server()) == BLOB


@pytest.mark.parametrize("size", [1000, 10 * len(BLOB)])
def test_another_size_than_announced_is_refused_before_a_byte_is_stored(tmp_path: Path, size: int) -> None:
    with pytest.raises(DownloadError, match=f"'{len(BLOB)}', expected '{size}'"):
        fetch(tmp_path, Server(), size=size)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_blob_is_said_so_at_once(tmp_path: Path) -> None:
    asked = []

    def missing(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        reply(request, 404, b"")

    with pytest.raises(DownloadError, match="answered 404"):
        fetch(tmp_path, missing)
    assert asked == [f"/api/v1/blobs/{DIGEST.hex()}"]


def test_a_server_in_trouble_is_asked_again_and_then_given_up(tmp_path: Path) -> None:
    asked = []

    def troubled(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        reply(request, 503, b"")

    with pytest.raises(DownloadError, match="answered 503"):
        fetch(tmp_path, troubled)
    assert len(asked) == ATTEMPTS


def test_nobody_there_is_an_error_with_the_address(tmp_path: Path) -> None:
    with urllib3.PoolManager() as http, pytest.raises(DownloadError, match="not reachable"):
        Downloads(tmp_path, "http://127.0.0.1:9", http, Hasty()).fetch(DIGEST, 10)


def test_a_full_disk_is_said_so(small_disk: Path) -> None:
    with pytest.raises(DownloadError, match=r"disk is full|File too large"):
        fetch(small_disk, Server())


def test_stop_gives_up_without_another_attempt(tmp_path: Path) -> None:
    server = Server(piece=1000, breaks=99)
    with serving(server) as url, urllib3.PoolManager() as http:
        downloads = Downloads(tmp_path, url, http, Hasty())
        downloads.stop.set()
        with pytest.raises(DownloadError):
            downloads.fetch(DIGEST, len(BLOB))
    assert len(server.asked) == 1


def test_blobs_that_are_not_needed_are_removed(tmp_path: Path) -> None:
    for name in (DIGEST.hex(), f"{DIGEST.hex()}.part", "00", "11.part"):
        (tmp_path / name).write_bytes(b"")
    with urllib3.PoolManager() as http:
        Downloads(tmp_path, "http://127.0.0.1:9", http).forget_all_but({DIGEST})
    assert {path.name for path in tmp_path.iterdir()} == {DIGEST.hex(), f"{DIGEST.hex()}.part"}
