"""Devices' keys and certificates for tests, from a real authority."""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aggregator.authority import Authority, Issued, private_pem
from aggregator.keyring import Keyring

DAY_S = 86_400.0


def request_for(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A certificate signing request in DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


@dataclass
class Pass:
    """A certificate, and the context of a client that shows it."""

    issued: Issued
    context: ssl.SSLContext


def pass_for(keyring: Keyring, name: str, folder: Path, *, by: Authority | None = None, age_days: float = 0.0) -> Pass:
    """A device's certificate that is good for 90 days from `age_days` ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = (by or keyring.authority).device(request_for(key, name), name, time.time() - age_days * DAY_S)
    both = folder / f"{name}-{issued.serial}.pem"
    both.write_bytes(issued.pem.encode() + private_pem(key))
    context = keyring.client_context(None)
    context.load_cert_chain(both)
    return Pass(issued, context)
