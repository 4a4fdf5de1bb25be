"""Wrong tokens cost their sender time: after some, an address is not listened to for a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

WRONG_AT_MOST: Final = 20
WITHIN_S: Final = 60.0
ADDRESSES_AT_MOST: Final = 4096
"""Beyond, the one that was wrong longest ago is forgotten: a stranger with many addresses cannot fill the memory."""


class Throttle:
    """Counts what was wrong, by address.

    Args:
        clock: seconds that never jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long `address` has to wait; 0 if it may try."""
        with self._lock:
            since, count = self._wrong.get(address, (0.0, 0))
            left_s = since + WITHIN_S - self._clock()
            return left_s if count >= WRONG_AT_MOST and left_s > 0 else 0.0

    def wrong(self, address: str) -> None:
        """Count one."""
        with self._lock:
            since, count = self._wrong.pop(address, (self._clock(), 0))
            if self._clock() - since > WITHIN_S:
                since, count = self._clock(), 0
            self._wrong[address] = (since, count + 1)
            if len(self._wrong) > ADDRESSES_AT_MOST:
                self._wrong.popitem(last=False)
