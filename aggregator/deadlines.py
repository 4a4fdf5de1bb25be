"""Deadlines that a jumping wall clock can neither fire early nor put off.

The database keeps a wall-clock second, because nothing else survives a restart; a running process counts the time
left by the monotonic clock. After a restart the time left is what the wall clock says, but never more than the whole
duration and never less than nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]
"""Seconds: since 1970 for a wall clock, since anything for a monotonic one."""


@dataclass
class Deadlines:
    """Time left until named wall-clock deadlines. One is remembered at a time: only one round runs."""

    clock: Clock
    monotonic: Clock
    _key: tuple[int, float] | None = field(default=None, init=False)
    _due: float = field(default=0.0, init=False)

    def remaining_s(self, number: int, deadline_at: float, duration_s: float) -> float:
        """Seconds left for round `number` until `deadline_at`, which was set `duration_s` ahead; at least 0."""
        if self._key != (number, deadline_at):
            self._key = (number, deadline_at)
            self._due = self.monotonic() + min(max(deadline_at - self.clock(), 0.0), duration_s)
        return max(self._due - self.monotonic(), 0.0)
