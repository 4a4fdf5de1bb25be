"""Certificates of a running aggregator, as files: its authority's, its servers', its own as a client of the broker.

ca.crt, ca.key              the authority
server.crt, server.key      HTTP and the broker child
aggregator.crt, .key        the aggregator as a client: may read and write everything of its fleet
probe.crt, .key             asks the broker whether it is well: may do nothing
revoked.pem                 certificates of devices that are good no more
"""

import ssl
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from aggregator.authority import LOCAL_NAMES, SERVER_DAYS, Authority, general_name, private_key
from aggregator.secret_files import write_whole
from protocol.envelope import AGGREGATOR

PROBE: Final = "_probe"
"""No device can be called so."""
SERVER: Final = "server"
REVOKED: Final = "revoked.pem"
CERTIFICATES: Final = "tls"
"""The folder's name in the state directory."""


class Keyring:
    """The files in `folder`, made and renewed as needed.

    Args:
        folder: made if it is not there.
        fleet: whose authority this is.
        names: host names and addresses at which devices reach this aggregator.
        clock: wall-clock seconds since 1970.

    Raises:
        SecretError: a file is damaged, or others can read a key.
    """

    def __init__(self, folder: Path, fleet: str, names: Sequence[str], clock: Callable[[], float]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self._names, self._clock = folder, tuple(names), clock
        self.authority = Authority.open(folder, fleet)
        self._listeners: list[Callable[[], None]] = []
        self._listed_at = 0.0
        self.renew()
        if not (folder / REVOKED).exists():
            self.revoke(())

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever a server's certificate or the list of revoked ones is a new one."""
        self._listeners.append(changed)

    def certificate(self, name: str) -> Path:
        """Where a certificate lies."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Where its key lies."""
        return self.folder / f"{name}.key"

    def renew(self) -> None:
        """Make what is missing, has passed half of its life, or lacks one of the names."""
        before = self._content()
        public = private_key(self.key(SERVER)).public_key()
        if not self._good(SERVER, (*self._names, *LOCAL_NAMES)):
            write_whole(self.certificate(SERVER), self.authority.server(public, self._names, self._clock()))
        for name, subject in ((AGGREGATOR, AGGREGATOR), ("probe", PROBE)):
            public = private_key(self.key(name)).public_key()
            if not self._good(name):
                write_whole(self.certificate(name), self.authority.client(public, subject, self._clock()))
        if before != self._content():
            self._tell()

    def revoke(self, serials: Iterable[str]) -> None:
        """Write the list of revoked certificates anew.

        Of two lists OpenSSL believes the later one, in whole seconds: each is at least a second after the one before.
        """
        path = self.folder / REVOKED
        if path.exists():
            last = x509.load_pem_x509_crl(path.read_bytes()).last_update_utc.timestamp()
            self._listed_at = max(self._listed_at, last)
        self._listed_at = max(float(int(self._clock())), self._listed_at + 1.0)
        write_whole(path, self.authority.revoked(serials, self._listed_at))
        self._tell()

    def client_context(self, name: str | None = AGGREGATOR, *, folder: Path | None = None) -> ssl.SSLContext:
        """For a connection to the broker or to HTTP: trusts this authority alone, shows the certificate of `name`."""
        context = ssl.create_default_context(cafile=str(self.certificate("ca")))
        if name is not None:
            where = folder or self.folder
            context.load_cert_chain(where / f"{name}.crt", where / f"{name}.key")
        return context

    def _good(self, name: str, wanted: Sequence[str] = ()) -> bool:
        path = self.certificate(name)
        if not path.exists():
            return False
        held = x509.load_pem_x509_certificate(path.read_bytes())
        left = held.not_valid_after_utc - datetime.fromtimestamp(self._clock(), UTC)
        return left > timedelta(days=SERVER_DAYS / 2) and _names_of(held) >= {general_name(one) for one in wanted}

    def _content(self) -> bytes:
        path = self.certificate(SERVER)
        return path.read_bytes() if path.exists() else b""

    def _tell(self) -> None:
        for changed in self._listeners:
            changed()


def _names_of(held: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()
