"""Cutting off a device that was revoked: no broker ends a connection because a list of certificates has changed.

All of them end the older of two connections under one name. So the authority makes itself a certificate in the
device's name for a minute, takes the name over, and leaves; the session that was kept for the device goes with it.
"""

import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.authority import Authority, private_pem
from aggregator.broker import BrokerUrl
from aggregator.keyring import Keyring
from aggregator.mqtt_probe import take_over
from aggregator.secret_files import write_whole

MINUTE_DAYS: Final = 1 / (24 * 60)


def evict(keyring: Keyring, url: BrokerUrl, device: str, now: float) -> None:
    """End the connection and the kept session of `device`, whose certificates are revoked already.

    Raises:
        NoBroker: the broker is away; then so is the device's connection.
    """
    with TemporaryDirectory(dir=keyring.folder) as folder:
        context = _disguise(keyring.authority, keyring.certificate("ca"), device, Path(folder), now)
        take_over(url.host, url.port, device, context=context)


def _disguise(authority: Authority, trusted: Path, device: str, folder: Path, now: float) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    both = folder / "both.pem"
    write_whole(both, authority.client(key.public_key(), device, now, MINUTE_DAYS) + private_pem(key))
    context = ssl.create_default_context(cafile=str(trusted))
    context.load_cert_chain(both)
    return context
