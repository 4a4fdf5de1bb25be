"""Base models for a crowd: fetched over HTTP once for all its devices, checked by their digest, and not decoded."""

from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256

import urllib3


class Bases:
    """What has been fetched; those who ask for more than that wait.

    Args:
        url: of the aggregator's HTTP door.
        http: connections to it.
    """

    def __init__(self, url: str, http: urllib3.PoolManager) -> None:
        self._url, self._http = url, http
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="bases")
        self._wanted: dict[bytes, Future[bool]] = {}
        self.broadcast_pieces = 0

    def hear(self, digest: bytes) -> None:
        """A piece of a broadcast came to one device."""
        del digest
        self.broadcast_pieces += 1

    def has(self, digest: bytes) -> bool:
        """Whether a base is here; if not, it is fetched meanwhile, again after a failure."""
        future = self._wanted.get(digest)
        if future is None or (future.done() and not future.result()):
            self._wanted[digest] = self._pool.submit(self._fetch, digest)
            return False
        return future.done()

    def close(self) -> None:
        """Fetch no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, digest: bytes) -> bool:
        try:
            answer = self._http.request("GET", f"{self._url}/api/v1/blobs/{digest.hex()}")
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200 and sha256(answer.data).digest() == digest
