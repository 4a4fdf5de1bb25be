"""What keeps a guarded fleet guarded while it runs: certificates renewed in time, revoked devices cut off."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aggregator import certificates
from aggregator.broker import BrokerUrl
from aggregator.config import Config
from aggregator.eviction import evict
from aggregator.keyring import CERTIFICATES, Keyring
from aggregator.mqtt_probe import NoBroker
from aggregator.room import Room

RENEW_EVERY_S: Final = 3600.0
TOLD_AFTER_S: Final = 0.5
"""The broker reads its lists again within this time; a device that is cut off sooner would come back at once."""
TRIES: Final = 3

log = logging.getLogger("bitfleet.aggregator")


def open_keyring(config: Config, room: Room) -> Keyring | None:
    """The fleet's certificates, with the list of revoked ones as the database has it; None where it has none.

    Raises:
        SecretError: a file is damaged, or others can read a key.
    """
    if not config.guarded:
        return None
    anywhere = {"0.0.0.0", "::"}  # noqa: S104 (compared, not bound)
    names = [*config.names, *({config.http_host, config.broker_host} - anywhere)]
    keyring = Keyring(config.state_dir / CERTIFICATES, config.fleet, names, room.clock)
    with room.store.transaction() as session:
        certificates.forget_expired(session, room.clock())
        keyring.revoke(certificates.listed(session, room.clock()))
    return keyring


@contextmanager
def guarding(keyring: Keyring, room: Room, broker: BrokerUrl, *, evicts: bool) -> Iterator[None]:
    """Renew what is due, and have `room.cut_off` end a device's connection, as long as the block runs.

    Args:
        keyring: the certificates.
        room: whose devices they are.
        broker: where devices are connected.
        evicts: whether that broker knows them by certificates of this authority.
    """
    stopping = threading.Event()
    cutters: list[threading.Thread] = []

    def cut_off(device: str) -> None:
        with room.store.reading() as session:
            serials = certificates.listed(session, room.clock())
        keyring.revoke(serials)
        if evicts:
            cutters.append(threading.Thread(target=_evict, args=(keyring, broker, device, room, stopping)))
            cutters[-1].start()

    def renew() -> None:
        while not stopping.wait(RENEW_EVERY_S):
            keyring.renew()

    for each in room.rooms.values():
        each.keyring, each.cut_off = keyring, cut_off
    renewer = threading.Thread(target=renew, name="certificates", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in (renewer, *cutters):
            thread.join()


def _evict(keyring: Keyring, broker: BrokerUrl, device: str, room: Room, stopping: threading.Event) -> None:
    for _ in range(TRIES):
        if stopping.wait(TOLD_AFTER_S):
            return
        try:
            evict(keyring, broker, device, room.clock())
        except NoBroker as error:
            log.warning("device %s: revoked, but its connection could not be ended: %s", device, error)
        else:
            log.info("device %s: revoked, and its connection is ended", device)
            return
