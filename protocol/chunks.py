"""An upload in pieces, and the bitmap of those still missing.

Bit n of a bitmap is bit n mod 8 of byte ⌊n/8⌋, lowest first, and stands for chunk n. All chunks but the last have
`chunk_bytes` bytes.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

from protocol.errors import LocalProtocolError, Malformed, Refusal, RemoteProtocolError
from protocol.messages import MAX_CHUNKS, MAX_PAYLOAD_BYTES

DEFAULT_CHUNK_BYTES: Final = 64 * 1024
"""Throughput is flat above 16 kB, brokers cap packets at 128 kB to 2 MB, and small pieces resume cheaply."""
MIN_CHUNK_BYTES: Final = 1024
MAX_BROADCAST_BYTES: Final = 1 << 24
"""A device gathers a broadcast in memory, and a small board has 512 MB; larger ones it fetches, piece by piece."""


def chunk_count(payload_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a payload has.

    Raises:
        Malformed: more than `MAX_CHUNKS`, more bytes than `MAX_PAYLOAD_BYTES`, or none.
    """
    if not 0 < payload_bytes <= MAX_PAYLOAD_BYTES or chunk_bytes <= 0:
        raise Malformed(f"{payload_bytes} bytes in chunks of {chunk_bytes}: expected 1 to {MAX_PAYLOAD_BYTES} bytes")
    count = -(-payload_bytes // chunk_bytes)
    if count > MAX_CHUNKS:
        raise Malformed(f"{count} chunks of {chunk_bytes} bytes: expected at most {MAX_CHUNKS}")
    return count


def chunk_at(payload: bytes, chunk_bytes: int, number: int) -> bytes:
    """Chunk `number` of a payload."""
    return payload[number * chunk_bytes : (number + 1) * chunk_bytes]


def to_bitmap(numbers: Iterable[int], count: int) -> bytes:
    """The bitmap of `numbers`, each below `count`."""
    bitmap = bytearray(-(-count // 8))
    for number in numbers:
        if not 0 <= number < count:
            raise LocalProtocolError(f"chunk {number}: expected 0 to {count - 1}")
        bitmap[number // 8] |= 1 << (number % 8)
    return bytes(bitmap)


def from_bitmap(bitmap: bytes, count: int) -> Iterator[int]:
    """The numbers in a bitmap of `count` chunks, rising.

    Raises:
        Malformed: the bitmap has another length, or a bit past the last chunk.
    """
    if len(bitmap) != -(-count // 8) or (count % 8 and bitmap[-1] >> (count % 8)):
        raise Malformed(
            f"bitmap of {len(bitmap)} bytes for {count} chunks: expected {-(-count // 8)}, unused bits zero"
        )
    return (number for number in range(count) if bitmap[number // 8] >> (number % 8) & 1)


class Assembly:
    """Chunks arriving in any order, any number of times.

    Raises:
        Malformed: the announced sizes are out of bounds.
    """

    def __init__(self, payload_bytes: int, chunk_bytes: int, digest: bytes) -> None:
        self.count = chunk_count(payload_bytes, chunk_bytes)
        self._payload_bytes, self._chunk_bytes, self._digest = payload_bytes, chunk_bytes, digest
        self._chunks: dict[int, bytes] = {}

    def add(self, number: int, data: bytes) -> None:
        """Take chunk `number`.

        Raises:
            Malformed: no such chunk, or not the size it must have.
        """
        if not 0 <= number < self.count:
            raise Malformed(f"chunk {number}: expected 0 to {self.count - 1}")
        size = min(self._chunk_bytes, self._payload_bytes - number * self._chunk_bytes)
        if len(data) != size:
            raise Malformed(f"chunk {number} of {len(data)} bytes: expected {size}")
        self._chunks[number] = data

    @property
    def missing(self) -> bytes:
        """The bitmap of what has not arrived."""
        return to_bitmap((n for n in range(self.count) if n not in self._chunks), self.count)

    @property
    def complete(self) -> bool:
        """Whether every chunk is here."""
        return len(self._chunks) == self.count

    def payload(self) -> bytes:
        """The whole, once complete.

        Raises:
            RemoteProtocolError: its SHA-256 is not the announced one; every chunk is then forgotten.
        """
        whole = b"".join(self._chunks[number] for number in range(self.count))
        if sha256(whole).digest() != self._digest:
            self._chunks.clear()
            raise RemoteProtocolError("payload does not have the digest of its manifest", Refusal.WRONG_DIGEST)
        return whole
