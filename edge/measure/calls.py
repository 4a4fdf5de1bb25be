"""The innermost loop: a call again and again, each timed by two clocks. Shared with the trainer's process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

Nanoseconds = npt.NDArray[np.int64]

NS_PER_MS: Final = 1e6
NS_PER_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class Calls:
    """A window's calls, in order.

    Attributes:
        wall_ns: elapsed time of each.
        cpu_ns: processor time of each: what it worked, without what it waited for a processor.
        window_s: elapsed time from before the first to after the last.
    """

    wall_ns: Nanoseconds
    cpu_ns: Nanoseconds
    window_s: float

    def __len__(self) -> int:
        return len(self.wall_ns)

    @property
    def p50_ms(self) -> float:
        """Median of elapsed time."""
        return float(np.median(self.wall_ns)) / NS_PER_MS

    @property
    def cpu_p50_ms(self) -> float:
        """Median of processor time."""
        return float(np.median(self.cpu_ns)) / NS_PER_MS

    def to_plain(self) -> dict[str, Any]:
        """For a pipe."""
        return {"wall_ns": self.wall_ns.tolist(), "cpu_ns": self.cpu_ns.tolist(), "window_s": self.window_s}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """From a pipe."""
        wall_ns, cpu_ns = (np.array(plain[name], dtype=np.int64) for name in ("wall_ns", "cpu_ns"))
        return cls(wall_ns, cpu_ns, plain["window_s"])


def repeat(call: Callable[[], object], for_s: float, at_least: int, threads: int = 1) -> Calls:
    """Call until `for_s` have passed and `at_least` calls were made.

    Args:
        call: what is measured.
        for_s: seconds.
        at_least: calls, however long they take.
        threads: what `call` computes with. One is the calling thread, whose own clock sees nothing of a progress bar
            beside it; several are only seen by the process's clock.
    """
    cpu_clock = time.thread_time_ns if threads == 1 else time.process_time_ns
    wall_ns: list[int] = []
    cpu_ns: list[int] = []
    began_ns = now_ns = time.perf_counter_ns()
    end_ns = began_ns + int(for_s * NS_PER_S)
    while now_ns < end_ns or len(wall_ns) < at_least:
        cpu_before_ns, before_ns = cpu_clock(), time.perf_counter_ns()
        call()
        now_ns = time.perf_counter_ns()
        cpu_ns.append(cpu_clock() - cpu_before_ns)
        wall_ns.append(now_ns - before_ns)
    return Calls(np.array(wall_ns, np.int64), np.array(cpu_ns, np.int64), (now_ns - began_ns) / NS_PER_S)
