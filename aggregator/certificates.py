"""Certificates of devices: issued for a key that a device has proved to ask for, renewed, revoked.

A device holds one at a time, and one more while it takes over the next; who asks again with the same key before half
of its certificate's life is over gets the same one, so that no repeated request fills the table.
"""

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import audit
from aggregator.authority import Issued, RequestRefused, requested_key
from aggregator.faults import CommandRefused, Fault
from aggregator.room import Room
from aggregator.store import Certificate
from protocol.enrolment import proof_bytes
from protocol.errors import Forged
from protocol.signing import VerifyKey

DAY_S: Final = 86_400.0
HELD_AT_MOST: Final = 8
"""Unexpired certificates of one device: more are asked for by none that is well."""


def check_proof(device: str, key: VerifyKey, request: bytes, proof: bytes) -> None:
    """Make sure that the device itself asks (BF-097).

    Raises:
        CommandRefused: FORBIDDEN, the signature is not this key's.
    """
    try:
        key.verify(proof, proof_bytes(device, request))
    except Forged as error:
        raise CommandRefused(
            Fault.FORBIDDEN, f"certificate request of {device!r}: the proof is not signed by the device's key"
        ) from error


def issue(session: Session, room: Room, device: str, request: bytes) -> str:
    """The certificate (PEM) of a member for the key in its request; empty where the fleet has no authority.

    Raises:
        CommandRefused: INVALID request; CONFLICT, the device has had too many.
    """
    if room.keyring is None:
        return ""
    now = room.clock()
    held = _held(session, device, now)
    try:
        public = requested_key(request)
        for row in held:
            if row.issued_at + (row.expires_at - row.issued_at) / 2 > now and _key_of(row) == public:
                return row.pem
        if len(held) >= HELD_AT_MOST:
            raise CommandRefused(
                Fault.CONFLICT, f"device {device!r} has {len(held)} certificates: revoke it, or wait until they expire"
            )
        issued = room.keyring.authority.device(request, device, now, room.certificate_days)
    except RequestRefused as error:
        raise CommandRefused(Fault.INVALID, str(error)) from error
    session.add(_row(device, issued, now))
    audit.by_device(session, device, "certificate", now, serial=issued.serial)
    return issued.pem


def revoke(session: Session, device: str, now: float) -> None:
    """Mark every certificate of a device as good no more; `listed` then names them for the broker."""
    for row in _held(session, device, now):
        row.revoked_at = now


def listed(session: Session, now: float) -> list[str]:
    """Serial numbers of revoked certificates that have not expired."""
    query = select(Certificate.serial).where(Certificate.revoked_at.is_not(None), Certificate.expires_at > now)
    return list(session.scalars(query.order_by(Certificate.serial)))


def forget_expired(session: Session, now: float) -> None:
    """Drop what no broker lets in any more."""
    for row in session.scalars(select(Certificate).where(Certificate.expires_at < now - DAY_S)):
        session.delete(row)


def _held(session: Session, device: str, now: float) -> Sequence[Certificate]:
    good = select(Certificate).where(
        Certificate.device == device, Certificate.expires_at > now, Certificate.revoked_at.is_(None)
    )
    return session.scalars(good.order_by(Certificate.issued_at.desc())).all()


def _key_of(row: Certificate) -> object:
    return x509.load_pem_x509_certificate(row.pem.encode()).public_key()


def _row(device: str, issued: Issued, now: float) -> Certificate:
    return Certificate(serial=issued.serial, device=device, pem=issued.pem, issued_at=now, expires_at=issued.expires_at)
