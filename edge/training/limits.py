"""What keeps training from taking the device down with it."""

import os
import resource
from contextlib import suppress
from pathlib import Path


def apply_limits(*, memory_bytes: int, nice: int) -> None:
    """Bound this process before it does any work.

    Args:
        memory_bytes: of writable private memory, 0 for no limit. RLIMIT_DATA counts what training allocates;
            RLIMIT_AS would count the gigabyte of address space that torch's libraries map and hardly touch.
        nice: added to the priority number; 19 trains only when nothing else wants the processor.
    """
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    os.nice(nice)
    # If the kernel must kill something for memory, let it be the trainer and not the agent. Linux only.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
