"""What a run of inferences took together."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.inference.answers import Answer, Skipped
from edge.memory import MEGABYTE, memory
from edge.runtime import ModelSlot

LATENCIES_KEPT: Final = 10_000
"""The last ones: a camera runs for weeks, and a hundred of these lie above the 99th percentile."""


@dataclass(frozen=True, slots=True)
class Served:
    """How many pictures a model answered for; version 0 where no round of a fleet made it."""

    version: int
    precision: str
    digest: str
    pictures: int

    def __str__(self) -> str:
        name = f"version {self.version}" if self.version else self.digest[:12]
        return f"{name} at {self.precision} ({self.pictures})"


@dataclass(frozen=True, slots=True)
class Summary:
    """A run.

    Attributes:
        pictures: answered.
        skipped: could not be read.
        seconds: from the first picture asked for to the last answer, reading included.
        per_second: pictures answered.
        p50_ms: of an inference, p99_ms likewise; of the last 10,000, None without any.
        models: in the order they served.
        memory_bytes: resident at the end.
        peak_memory_bytes: the most at once.
    """

    pictures: int
    skipped: int
    seconds: float
    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    models: tuple[Served, ...]
    memory_bytes: int
    peak_memory_bytes: int

    def __str__(self) -> str:
        served = ", ".join(map(str, self.models)) or "unused"
        latency = "" if self.p50_ms is None else f"; inference p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        return (
            f"{self.pictures} pictures, {self.skipped} skipped, {self.per_second:.1f} a second{latency};"
            f" model {served}; peak memory {self.peak_memory_bytes / MEGABYTE:.0f} MB"
        )


@dataclass
class Tally:
    """Counts as answers come."""

    skipped: int = 0
    _began_s: float = field(default_factory=time.monotonic)
    _pictures: Counter[ModelSlot] = field(default_factory=Counter)
    _latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def add(self, batch: list[Answer | Skipped]) -> None:
        """Count a batch, which was one inference."""
        answers = [one for one in batch if isinstance(one, Answer)]
        self.skipped += len(batch) - len(answers)
        self._pictures.update(answer.slot for answer in answers)
        self._latencies_ms.extend(answer.latency_ms for answer in answers[:1])

    def summary(self) -> Summary:
        """So far."""
        seconds, pictures, taken = time.monotonic() - self._began_s, self._pictures.total(), memory()
        p50_ms, p99_ms = np.percentile(self._latencies_ms, (50, 99)).tolist() if self._latencies_ms else (None, None)
        return Summary(
            pictures=pictures,
            skipped=self.skipped,
            seconds=seconds,
            per_second=pictures / seconds if seconds else 0.0,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            models=tuple(
                Served(slot.version, slot.precision, slot.digest, count) for slot, count in self._pictures.items()
            ),
            memory_bytes=taken.now_bytes,
            peak_memory_bytes=taken.peak_bytes,
        )
