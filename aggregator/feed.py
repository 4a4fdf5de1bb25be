"""Changes as they happen, for whoever listens: each numbered, the newest kept for those who were away a moment.

Listeners read at their own pace from a queue of bounded length. Who falls behind by more than that is sent away, since
memory must not grow with the slowest reader; it comes back with the number of the last change it saw, and goes on from
there, or is told to read everything anew where that change is forgotten.
"""

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aggregator.changes import Change

KEPT: Final = 400
"""Changes kept for those who come back: about a round of a hundred devices."""
BEHIND: Final = 500
"""Changes a listener may be behind by."""
RESET: Final = "reset"
"""The kind of what is said to a listener who has missed changes: read anew what you show."""
HELLO: Final = "hello"
"""The kind of what is said first to one who comes new: from here on."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A change with its number, which no other change of this fleet has: the aggregator's start, and a count."""

    id: str
    change: Change


class Listener:
    """One reader of the feed, in an event loop of its own.

    `behind` says why it was sent away: it was too slow.
    """

    def __init__(self, missed: list[Numbered]) -> None:
        self.behind = False
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Numbered | None] = asyncio.Queue()
        for item in missed:
            self._queue.put_nowait(item)

    def hand(self, item: Numbered | None) -> None:
        """Put a change, or None for the end, into its queue; from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._put, item)

    def _put(self, item: Numbered | None) -> None:
        if self.behind:
            return
        if item is not None and self._queue.qsize() >= BEHIND:
            self.behind, item = True, None
            while not self._queue.empty():
                self._queue.get_nowait()
        self._queue.put_nowait(item)

    def forget(self) -> None:
        """Drop what waits: whoever reads everything anew has seen it. The end is kept."""
        waiting = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        if None in waiting:
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Numbered]:
        while (item := await self._queue.get()) is not None:
            yield item


class Feed:
    """The changes of one run of an aggregator.

    Args:
        boot: how often the aggregator was started, the first half of every number.
    """

    def __init__(self, boot: int) -> None:
        self._boot = boot
        self._count = itertools.count(1)
        self._kept: deque[Numbered] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._closed = False

    def tell(self, change: Change) -> None:
        """Number a change and hand it to every listener; from any thread, and without waiting for any of them."""
        with self._lock:
            item = Numbered(f"{self._boot}-{next(self._count)}", change)
            self._kept.append(item)
            for listener in self._listeners:
                listener.hand(item)

    @contextmanager
    def listening(self, after: str = "") -> Iterator[Listener]:
        """A listener for as long as the block runs; call it in an event loop.

        Args:
            after: the number of the last change it saw; empty for only what comes from now on.
        """
        with self._lock:
            listener = Listener(self._since(after))
            self._listeners.add(listener)
            if self._closed:
                listener.hand(None)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _since(self, after: str) -> list[Numbered]:
        """What came after a change; a hello or a reset where nothing or not all of it can be said."""
        kept = list(self._kept)
        place = next((index for index, item in enumerate(kept) if item.id == after), None)
        if place is not None:
            return kept[place + 1 :]
        newest = kept[-1].id if kept else f"{self._boot}-0"
        return [] if after == newest else [Numbered(newest, Change(RESET if after else HELLO, {}))]

    def close(self) -> None:
        """Send everybody home."""
        with self._lock:
            self._closed = True
            for listener in self._listeners:
                listener.hand(None)
