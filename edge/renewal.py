"""The device's next certificate: asked for at half of the present one's life, or when the broker lets it in no more.

The aggregator's clock decides whether one is due; a device whose clock is wrong only asks too often, or when it is out.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import urllib3

from edge.backoff import delays_s
from edge.config import Config
from edge.join import JoinError, TokenRefused, join
from edge.membership import Membership
from edge.trust import Trust, TrustError
from protocol.signing import SigningKey

LOOK_EVERY_S: Final = 2.0
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0

log = logging.getLogger(__name__)


@dataclass
class Renewal:
    """Keeps one member's certificate good.

    Attributes:
        config: names the aggregator.
        membership: of the device.
        trust: where the certificate lies.
        key: what the device signs with.
        http: connections to the aggregator.
        clock: wall-clock seconds.
        rng: for the jitter.
    """

    config: Config
    membership: Membership
    trust: Trust
    key: SigningKey
    http: urllib3.PoolManager
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)

    @contextmanager
    def watching(self, turned_away: Callable[[], bool], shut_out: Callable[[str], None]) -> Iterator[None]:
        """Look after the certificate as long as the block runs.

        Args:
            turned_away: whether the broker has not taken the certificate.
            shut_out: called with the reason if the aggregator says that the device belongs to it no more.
        """
        ending = threading.Event()
        thread = threading.Thread(target=self._watch, args=(turned_away, shut_out, ending), name="renewal", daemon=True)
        if self.trust.pinned:
            thread.start()
        try:
            yield
        finally:
            ending.set()
            if self.trust.pinned:
                thread.join()

    @property
    def due(self) -> bool:
        """Whether half of the certificate's life is over by the device's own clock."""
        held = self.trust.certificate
        if held is None:
            return True
        begin, end = held.not_valid_before_utc.timestamp(), held.not_valid_after_utc.timestamp()
        return self.clock() > begin + (end - begin) / 2

    def ask(self) -> bool:
        """Ask once; whether there is a new certificate.

        Raises:
            JoinError: one of its kinds; TokenRefused if the device was revoked.
            TrustError: what came is no certificate for this device.
        """
        before = self.trust.certificate
        join(
            self.http,
            self.config.aggregator,
            device=self.membership.device,
            public=self.key.public,
            token="",
            trust=self.trust,
            key=self.key,
        )
        return self.trust.certificate != before

    def _watch(self, turned_away: Callable[[], bool], shut_out: Callable[[str], None], ending: threading.Event) -> None:
        pauses, pause_s = self._pauses(), LOOK_EVERY_S
        while not ending.wait(pause_s):
            pause_s = LOOK_EVERY_S
            if not (turned_away() or self._due()):
                continue
            try:
                if self.ask():
                    log.info("device %s: has a new certificate", self.membership.device)
                    pauses = self._pauses()
            except TokenRefused as error:
                shut_out(str(error))
                return
            except (JoinError, TrustError, OSError) as error:
                log.warning("device %s: certificate not renewed: %s", self.membership.device, error)
            pause_s += next(pauses)

    def _due(self) -> bool:
        try:
            return self.due
        except TrustError:
            return True

    def _pauses(self) -> Iterator[float]:
        return delays_s(self.rng, base_s=FIRST_PAUSE_S, cap_s=LONGEST_PAUSE_S)
