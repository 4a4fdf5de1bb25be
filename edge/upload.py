"""One update on its way out: a manifest, and then exactly the chunks that the aggregator asks for.

The aggregator answers every manifest with `Need` or the final `Receipt` (BF-024), so nothing is sent that it has: an
upload cut off by a restart of either side continues where it was.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from edge.backoff import delays_s
from edge.link import Link
from edge.mqtt import IN_FLIGHT, Ticket
from edge.outbox import Entry
from protocol.chunks import chunk_at, chunk_count, from_bitmap
from protocol.messages import Need
from protocol.topics import Topics

REPEAT_AFTER_S: Final = 2.0
"""Before the first repetition of a manifest: the aggregator decodes a full-width update in less."""


class Upload:
    """An entry of the outbox being sent. Methods that send block until the broker has acknowledged.

    Args:
        entry: the update.
        device: this one.
        topics: of its fleet.
        link: to send on.
        rng: for the jitter of repetitions.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        entry: Entry,
        device: str,
        topics: Topics,
        link: Link,
        *,
        rng: random.Random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.entry = entry
        self._device, self._topics, self._link = device, topics, link
        self._rng, self._monotonic = rng, monotonic
        self._chunk_bytes = entry.manifest.chunk_bytes
        self.hurry()

    @property
    def due(self) -> bool:
        """Whether it is time for the manifest."""
        return self._monotonic() >= self._due_at_s

    def hurry(self) -> None:
        """The other side is there (again): say the manifest now, and begin the back-off anew."""
        self._due_at_s = self._monotonic()
        self._delays: Iterator[float] = delays_s(self._rng)

    def later(self) -> None:
        """Put the next manifest off."""
        self._due_at_s = self._monotonic() + REPEAT_AFTER_S + next(self._delays)

    def send_manifest(self) -> None:
        """Announce the update, in chunks that fit the broker of this connection.

        Raises:
            LinkError: it could not be handed over, or nobody listens.
        """
        topic = self._topics.manifest(self.entry.shard, self._device, self.entry.task)
        self._chunk_bytes = self._link.chunk_bytes(self._chunk_topic(self._count - 1))
        self._link.publish(topic, replace(self.entry.manifest, chunk_bytes=self._chunk_bytes))

    def send_chunks(self, need: Need) -> int:
        """Send what is missing; how many chunks that was.

        Raises:
            Malformed: the bitmap is not one of this update.
            LinkError: not all could be handed over.
        """
        in_flight: deque[Ticket] = deque()
        numbers = list(from_bitmap(need.missing, self._count))
        for number in numbers:
            chunk = chunk_at(self.entry.payload, self._chunk_bytes, number)
            in_flight.append(self._link.send(self._chunk_topic(number), chunk))
            if len(in_flight) >= IN_FLIGHT:
                self._link.confirm(in_flight.popleft())
        for ticket in in_flight:
            self._link.confirm(ticket)
        return len(numbers)

    @property
    def _count(self) -> int:
        return chunk_count(len(self.entry.payload), self._chunk_bytes)

    def _chunk_topic(self, number: int) -> str:
        return self._topics.chunk(self.entry.shard, self._device, self.entry.task, number)
