"""Both directions of trust on the device: what it says is signed, what it hears is checked and never heard twice."""

import itertools
import time
from collections.abc import Callable
from typing import Final

from edge.state import Journal
from protocol.envelope import AGGREGATOR, Stamp, open_envelope, seal
from protocol.messages import Message, RoundState, ServerState
from protocol.replay import admit
from protocol.signing import SigningKey, VerifyKey

MS_PER_S: Final = 1000


class Seal:
    """Signs with the device's key under this start's boot number; opens with the pinned key of the aggregator.

    The replay guard lives in the journal: a stamp is on disk before its message is acted on. A message lost by a
    kill in between comes again, since the aggregator repeats what the device has not answered.

    Args:
        device: the sender's name.
        key: the device's private key.
        server: the aggregator's public key, pinned when the device joined.
        journal: gives the boot number, keeps the guard.
        clock: wall-clock seconds, for people to read.
    """

    def __init__(
        self,
        device: str,
        key: SigningKey,
        server: VerifyKey,
        journal: Journal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._device, self._key, self._server = device, key, server
        self._journal, self._clock = journal, clock
        self._sequence = itertools.count(1)

    def close(self, message: Message, topic: str) -> bytes:
        """The sealed bytes of `message` for `topic`.

        Raises:
            LocalProtocolError: a field is out of bounds.
        """
        stamp = Stamp(self._journal.record.boot, next(self._sequence))
        time_ms = int(self._clock() * MS_PER_S)
        return seal(message, topic=topic, sender=self._device, stamp=stamp, time_ms=time_ms, key=self._key)

    def open(self, data: bytes, topic: str) -> Message | None:
        """The message in `data`, None for a retained one or a will of an aggregator that has started again since.

        Raises:
            RemoteProtocolError: not from the aggregator, not for this topic, or heard before.
        """
        envelope = open_envelope(data, topic=topic, key_of=lambda name: self._server if name == AGGREGATOR else None)
        record = self._journal.record
        if isinstance(envelope.message, ServerState | RoundState):
            if envelope.stamp.boot < record.server_boot:
                return None
            if envelope.stamp.boot > record.server_boot:
                self._journal.change(server_boot=envelope.stamp.boot)
            return envelope.message
        self._journal.change(seen=admit(record.seen, envelope))
        return envelope.message
