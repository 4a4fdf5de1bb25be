"""The base model of an offer: by the steps that lead to it from what is at hand, or whole where that is less.

What was fetched or made last stays in the folder of the downloads under its SHA-256, and is what the next offer's
steps start from. Steps that go wrong in any way cost their bytes, never the round: the whole is fetched instead.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.broadcasts import Broadcasts
from edge.downloads import DownloadError, Downloads
from protocol.errors import RemoteProtocolError
from protocol.messages import Offer, Step
from protocol.reference import cheapest, moved, state_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bases:
    """Base models by way of the downloads, and of what is broadcast."""

    downloads: Downloads
    broadcasts: Broadcasts

    def fetch(self, offer: Offer) -> bytes:
        """The payload whose SHA-256 the offer names; afterwards it is the only blob kept.

        Raises:
            DownloadError: it cannot be fetched.
            OSError: the disk is full.
        """
        held = self.downloads.held()
        self.downloads.forget_all_but({offer.base, *held, *(step.digest for step in offer.steps)})
        steps = cheapest(offer.steps, offer.base, offer.base_bytes, held)
        if offer.broadcast and (steps or (steps is None and not offer.steps)):
            self._gather(offer.newest)
        if steps:
            try:
                self.downloads.keep(offer.base, self._followed(steps, held))
            except (DownloadError, RemoteProtocolError) as error:
                log.warning("base model of round %d by %d steps: %s; fetched whole", offer.round, len(steps), error)
        path = self.downloads.fetch(offer.base, offer.base_bytes)
        self.downloads.forget_all_but({offer.base})
        return path.read_bytes()

    def _gather(self, newest: Step) -> None:
        """Keep what is broadcast if it comes; if not, it is downloaded like the rest."""
        data = self.broadcasts.take(newest.digest, newest.payload_bytes, self.downloads.stop.is_set)
        if data is not None:
            self.downloads.keep(newest.digest, data)

    def _followed(self, steps: Sequence[Step], held: Mapping[bytes, Path]) -> bytes:
        """Where steps lead, the first from what is at hand or from nothing."""
        first, *rest = (self.downloads.fetch(step.digest, step.payload_bytes).read_bytes() for step in steps)
        before = steps[0].before
        state = moved(held[before].read_bytes(), first) if before else state_of(first)
        for step in rest:
            state = moved(state, step)
        return state
