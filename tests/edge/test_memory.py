"""A process's own memory, counted for itself alone."""

import subprocess
import sys

from edge.memory import MEGABYTE, memory

PEAK = "from edge.memory import memory; print(memory().peak_bytes)"


def test_the_peak_stays_when_memory_is_given_back() -> None:
    before = memory()
    data = bytearray(64 * MEGABYTE)
    data[:: 1 << 12] = bytes([1]) * len(range(0, len(data), 1 << 12))
    held = memory()
    del data
    after = memory()
    assert held.now_bytes >= before.now_bytes + 60 * MEGABYTE
    assert after.peak_bytes >= held.now_bytes - MEGABYTE
    assert after.now_bytes <= held.now_bytes - 60 * MEGABYTE


def test_the_peak_is_not_that_of_whoever_started_the_process() -> None:
    """By getrusage it would be: that number outlives exec."""
    ballast = b"x" * (200 * MEGABYTE)
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, check=True)
    assert int(done.stdout) < len(ballast)
