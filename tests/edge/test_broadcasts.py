"""Pieces of a broadcast: in any order, bounded, and never more trusted than their SHA-256."""

import threading
from hashlib import sha256

from edge.broadcasts import Broadcasts
from protocol.chunks import MAX_BROADCAST_BYTES

BLOB = bytes(range(256)) * 10
DIGEST = sha256(BLOB).digest()
PIECES = [BLOB[:1000], BLOB[1000:2000], BLOB[2000:]]


def test_pieces_come_in_any_order_and_while_one_waits() -> None:
    """BF-034."""
    broadcasts, taken = Broadcasts(), []
    waiting = threading.Thread(target=lambda: taken.append(broadcasts.take(DIGEST, len(BLOB))))
    waiting.start()
    for number in (2, 0, 0, 1):
        broadcasts.hear(DIGEST, number, PIECES[number])
    waiting.join()
    assert taken == [BLOB]


def test_what_does_not_come_is_given_up() -> None:
    broadcasts = Broadcasts()
    broadcasts.hear(DIGEST, 0, PIECES[0])
    assert broadcasts.take(DIGEST, len(BLOB)) is None
    assert broadcasts.take(DIGEST, len(BLOB), stopped=lambda: True) is None


def test_other_bytes_are_not_taken() -> None:
    """BF-034."""
    broadcasts = Broadcasts()
    for number in range(3):
        broadcasts.hear(DIGEST, number, PIECES[number][::-1])
    assert broadcasts.take(DIGEST, len(BLOB)) is None


def test_memory_is_bounded_however_much_is_published() -> None:
    broadcasts, piece = Broadcasts(), bytes(1 << 16)
    for number in range(2 * MAX_BROADCAST_BYTES // len(piece)):
        broadcasts.hear(sha256(bytes([number // 100])).digest(), number, piece)
        assert broadcasts._bytes() <= MAX_BROADCAST_BYTES
    for number in range(200):
        broadcasts.hear(sha256(bytes([number])).digest(), 0, b"x")
    assert broadcasts._bytes() == 2


def test_a_blob_of_one_endless_number_of_pieces_is_dropped_whole() -> None:
    broadcasts, piece = Broadcasts(), bytes(1 << 20)
    for number in range(40):
        broadcasts.hear(DIGEST, number, piece)
    assert broadcasts._bytes() <= MAX_BROADCAST_BYTES
