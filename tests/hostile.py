"""What hostile bytes may make a decoder do: raise the protocol's errors, and take memory that goes with the table."""

import tracemalloc
from collections.abc import Callable

from protocol.errors import RemoteProtocolError

MULTIPLE = 8
"""Of the float32 values that the shapes allow: what a decoder may hold at once, its result included."""
SLACK_BYTES = 200_000
"""For what does not grow with the shapes: headers, tables of 2^14 words, errors."""


def survives(call: Callable[[], object]) -> object:
    """What a decoder gives, or None if it refuses; anything else that it raises is the test's failure."""
    try:
        return call()
    except RemoteProtocolError:
        return None


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory a decoder holds while it reads, or refuses."""
    tracemalloc.start()
    try:
        survives(call)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_bounded(call: Callable[[], object], values: int) -> None:
    """Check that a decoder of `values` float32 takes no more than a few times their memory."""
    peak = peak_bytes(call)
    allowed = MULTIPLE * 4 * values + SLACK_BYTES
    assert peak <= allowed, f"{peak} bytes for {values} values: expected at most {allowed}"
