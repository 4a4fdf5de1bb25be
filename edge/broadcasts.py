"""What the aggregator publishes once for all devices of a width: pieces of blobs, gathered as they come (BF-034).

Nothing here is trusted: whoever takes a blob knows its SHA-256 from a signed offer. Pieces that are lost, since they
travel at QoS 0, are no loss either; the blob is then fetched over HTTP.
"""

import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from protocol.chunks import MAX_BROADCAST_BYTES

PATIENCE_S: Final = 2.0
"""Without another piece for so long, the rest is not coming."""


class Broadcasts:
    """Pieces of the blob that is being published, and of the one before; for any thread."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, dict[int, bytes]] = {}
        self._heard = threading.Condition()

    def hear(self, digest: bytes, number: int, data: bytes) -> None:
        """Piece `number` of a blob has arrived."""
        with self._heard:
            pieces = self._pieces.setdefault(digest, {})
            pieces[number] = data
            while len(self._pieces) > 2 or self._bytes() > MAX_BROADCAST_BYTES:
                del self._pieces[next(iter(self._pieces))]
            self._heard.notify_all()

    def take(self, digest: bytes, size_bytes: int, stopped: Callable[[], bool] = lambda: False) -> bytes | None:
        """The blob, once it is whole; None if it does not come, or is not what its name says."""
        with self._heard:
            while self._bytes(digest) < size_bytes and not stopped():
                if not self._heard.wait(PATIENCE_S):
                    return None
            pieces = self._pieces.pop(digest, {})
        data = b"".join(pieces[number] for number in sorted(pieces))
        return data if sha256(data).digest() == digest else None

    def _bytes(self, digest: bytes | None = None) -> int:
        """Gathered of one blob, or of all."""
        chosen = self._pieces.values() if digest is None else [self._pieces.get(digest, {})]
        return sum(len(data) for pieces in chosen for data in pieces.values())
