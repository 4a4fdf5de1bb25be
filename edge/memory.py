"""What this process takes of the device's memory."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

MEGABYTE: Final = 1 << 20
KILOBYTE: Final = 1 << 10
_STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes: now, and the most there were at once."""

    now_bytes: int
    peak_bytes: int


def memory() -> Memory:
    """Of this process, as the system counts it."""
    now_bytes = psutil.Process().memory_info().rss
    return Memory(now_bytes, max(now_bytes, _peak_bytes()))


def _peak_bytes() -> int:
    # Linux's ru_maxrss outlives exec: it would tell the peak of whoever started this process.
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * KILOBYTE
    return next((int(line.split()[1]) * KILOBYTE for line in lines if line.startswith("VmHWM:")), 0)
