"""The fleet's own certificate authority: it says who is the aggregator, and which device is which.

Keys are ECDSA on P-256, the one curve that OpenSSL, Java, Erlang and browsers all take in TLS; Ed25519, with which
devices sign their envelopes, is not. Only this authority's word counts in a fleet, and it gives each certificate one
use: a device's is no server's, so that a device that trusts this authority alone can be reached by no impostor,
whatever name or address it used.

Certificates of the authority and of servers begin in 1970: a Raspberry Pi wakes there, and must be able to talk to
someone who knows the time.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aggregator.secret_files import SecretError, kept, write_whole
from protocol.enrolment import fingerprint

AUTHORITY_KEY: Final = "ca.key"
AUTHORITY: Final = "ca.crt"
AUTHORITY_YEARS: Final = 30
SERVER_DAYS: Final = 730
DEVICE_DAYS: Final = 90
LIST_DAYS: Final = 3650
"""A list of revoked certificates is pushed to the broker when it changes; were it to expire, everybody would be out."""
BACKDATED: Final = timedelta(days=1)
"""For brokers whose clock is a little behind."""
DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_REQUEST_BYTES: Final = 4096

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")


class RequestRefused(Exception):
    """A certificate signing request that no certificate is given for; the message says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate of a device: PEM, its serial number, and until when (s since 1970) it is good."""

    pem: str
    serial: str
    expires_at: float


@dataclass(frozen=True)
class Authority:
    """A key and its certificate, in a folder."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def open(cls, folder: Path, fleet: str) -> Self:
        """The authority in `folder`, made at the first call.

        Raises:
            SecretError: key or certificate are damaged, do not belong together, or others can read the key.
        """
        key = private_key(folder / AUTHORITY_KEY)
        path = folder / AUTHORITY
        if not path.exists():
            write_whole(path, _pem(_own_certificate(key, fleet)))
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise SecretError(f"{path} is no certificate ({error}): restore it from a backup") from error
        if certificate.public_key() != key.public_key():
            raise SecretError(f"{path} belongs to another key than {folder / AUTHORITY_KEY}: restore both")
        return cls(key, certificate)

    @property
    def pem(self) -> str:
        """Its certificate."""
        return _pem(self.certificate).decode()

    @property
    def fingerprint(self) -> str:
        """What tokens carry."""
        return fingerprint(self.certificate.public_bytes(serialization.Encoding.DER))

    def server(self, public: ec.EllipticCurvePublicKey, names: Sequence[str], now: float) -> bytes:
        """A certificate (PEM) of a server that is reached by these host names and addresses, and by this machine."""
        every = dict.fromkeys((*names, socket.gethostname(), *LOCAL_NAMES))
        builder = self._builder(names[0] if names else socket.gethostname(), public, now, SERVER_DAYS)
        builder = builder.not_valid_before(DAWN).add_extension(
            x509.SubjectAlternativeName([general_name(name) for name in every]), critical=False
        )
        return _pem(self._signed(builder, ExtendedKeyUsageOID.SERVER_AUTH))

    def client(self, public: ec.EllipticCurvePublicKey, name: str, now: float, days: float = SERVER_DAYS) -> bytes:
        """A certificate (PEM) of a client called `name`."""
        return _pem(self._client(public, name, now, days))

    def device(self, request: bytes, name: str, now: float, days: float = DEVICE_DAYS) -> Issued:
        """A certificate for the key of a signing request (DER); its subject is `name`, whatever the request says.

        Raises:
            RequestRefused: it is none, is signed by another key, or is for no P-256 key.
        """
        made = self._client(requested_key(request), name, now, days)
        serial = f"{made.serial_number:x}"
        return Issued(_pem(made).decode(), serial, made.not_valid_after_utc.timestamp())

    def revoked(self, serials: Iterable[str], made_at: float) -> bytes:
        """The list (PEM) of certificates that are good no more."""
        when = datetime.fromtimestamp(made_at, UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(when).next_update(when + timedelta(days=LIST_DAYS))
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(when)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _client(self, public: ec.EllipticCurvePublicKey, name: str, now: float, days: float) -> x509.Certificate:
        begin = datetime.fromtimestamp(now, UTC) - BACKDATED
        builder = self._builder(name, public, now, days).not_valid_before(begin)
        return self._signed(builder, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _builder(
        self, name: str, public: ec.EllipticCurvePublicKey, now: float, days: float
    ) -> x509.CertificateBuilder:
        end = datetime.fromtimestamp(now, UTC) + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_after(end)
        )

    def _signed(self, builder: x509.CertificateBuilder, use: x509.ObjectIdentifier) -> x509.Certificate:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
            .add_extension(authority, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in `path`, made at the first call and readable by its owner alone.

    Raises:
        SecretError: it is damaged, or others can read it.
    """
    data = kept(path, lambda: private_pem(ec.generate_private_key(ec.SECP256R1())))
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise SecretError(f"{path} is no private key: restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SecretError(f"{path} is no key on an elliptic curve: restore it from a backup")
    return key


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a certificate signing request (DER) is for.

    Raises:
        RequestRefused: see `Authority.device`.
    """
    if len(request) > MAX_REQUEST_BYTES:
        raise RequestRefused(f"certificate request of {len(request)} bytes: expected {MAX_REQUEST_BYTES} at most")
    try:
        read = x509.load_der_x509_csr(request)
        key = read.public_key()
        whole = read.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, x509.UnsupportedGeneralNameType) as error:
        raise RequestRefused(f"certificate request: not readable ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise RequestRefused("certificate request: expected one for a key on P-256")
    if not whole:
        raise RequestRefused("certificate request: not signed by the key that it is for")
    return key


def general_name(name: str) -> x509.GeneralName:
    """A host name or address as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _own_certificate(key: ec.EllipticCurvePrivateKey, fleet: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"bitfleet {fleet}"[:64])])
    end = datetime.now(UTC) + timedelta(days=365 * AUTHORITY_YEARS)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(DAWN).not_valid_after(end)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(made: x509.Certificate) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as it lies on the disk."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
