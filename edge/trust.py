"""Whom the device trusts in TLS, and what it shows of itself.

    ca.crt     the fleet's authority, pinned by the fingerprint in the join token (BF-096)
    tls.key    the device's TLS key, made here and never leaving; its other key, Ed25519, signs messages
    tls.crt    its certificate, by that authority

The authority certifies nobody but the aggregator and its broker as servers, so host names are not compared: an
aggregator may move, and be reached by whatever address leads to it.
"""

import base64
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.files import write_atomic
from protocol.enrolment import fingerprint, proof_bytes
from protocol.signing import SigningKey

AUTHORITY: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
FLEET: Final = "fleet"
TIMEOUT_S: Final = 15.0
MAX_BYTES: Final = 16 * 1024


class TrustError(Exception):
    """Certificates cannot be used; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Trust:
    """The files in a device's state folder."""

    folder: Path

    @property
    def pinned(self) -> bool:
        """Whether the device trusts one authority alone."""
        return (self.folder / AUTHORITY).exists()

    @property
    def certificate(self) -> x509.Certificate | None:
        """The device's own, None before it has one.

        Raises:
            TrustError: the file is damaged.
        """
        path = self.folder / CERTIFICATE
        return _certificate(path.read_bytes(), str(path)) if path.exists() else None

    def pin(self, url: str, wanted: str) -> None:
        """Fetch the authority's certificate and trust it from now on, if it has the fingerprint `wanted`.

        Nothing is said to a stranger: the token goes to whom this authority certifies.

        Raises:
            TrustError: it has another one, or there is none.
            urllib3.exceptions.HTTPError, OSError: no answer.
        """
        with urllib3.PoolManager(ssl_context=_unchecked()) as http, warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)  # the fingerprint verifies
            answer = http.request("GET", f"{url}/api/v1/ca", timeout=TIMEOUT_S, retries=False, preload_content=False)
            data = answer.read(MAX_BYTES)
            answer.close()
        if answer.status != 200:
            raise TrustError(f"aggregator {url}: answered {answer.status} when asked for its authority")
        held = _certificate(data, f"aggregator {url}: its authority")
        found = fingerprint(held.public_bytes(serialization.Encoding.DER))
        if found != wanted:
            raise TrustError(
                f"aggregator {url}: its authority has fingerprint {found}, the token says {wanted}:"
                " this is another fleet, or somebody in between; check the address, or ask for a new token"
            )
        self.keep_authority(data.decode())

    def keep_authority(self, pem: str) -> None:
        """Trust this authority alone."""
        write_atomic(self.folder / AUTHORITY, pem.encode())

    def keep_certificate(self, pem: str) -> None:
        """Show this certificate from the next connection on.

        Raises:
            TrustError: it is none, or for another key.
        """
        made = _certificate(pem.encode(), "the certificate that the aggregator sent")
        if made.public_key() != self._key().public_key():
            raise TrustError("the certificate that the aggregator sent is for another key; join again")
        write_atomic(self.folder / CERTIFICATE, pem.encode())

    def request(self, device: str, key: SigningKey) -> dict[str, str]:
        """What a device adds to `join` to get a certificate (BF-097)."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self._key(), hashes.SHA256())
        data = made.public_bytes(serialization.Encoding.DER)
        return {
            "request": base64.b64encode(data).decode(),
            "proof": key.sign(proof_bytes(device, data)).hex(),
        }

    def connections(self, others: urllib3.PoolManager) -> urllib3.PoolManager:
        """HTTP connections to the aggregator: `others`, unless an authority is pinned."""
        if not self.pinned:
            return others
        return urllib3.PoolManager(ssl_context=self._context(), assert_hostname=False)

    def broker(self, kind: str) -> ssl.SSLContext:
        """For a TLS connection to the broker, which `kind` certifies: the fleet, or the system's authorities.

        Raises:
            TrustError: a file is missing or damaged.
        """
        context = self._context() if kind == FLEET else ssl.create_default_context()
        if (self.folder / CERTIFICATE).exists():
            try:
                context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY)
            except (OSError, ssl.SSLError) as error:
                raise TrustError(
                    f"certificate {self.folder / CERTIFICATE}: {error}; join again with a token"
                ) from error
        return context

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.folder / AUTHORITY))
        except (OSError, ssl.SSLError) as error:
            raise TrustError(f"authority {self.folder / AUTHORITY}: {error}; join again with a token") from error
        context.check_hostname = False
        return context

    def _key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / KEY
        if not path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            plain = serialization.NoEncryption()
            write_atomic(path, made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise TrustError(f"TLS key {path}: damaged; remove it and join again with a token") from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _certificate(data: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise TrustError(f"{what}: no certificate ({error})") from error
