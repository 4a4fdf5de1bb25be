"""What is wrong with certificates, in words: the doctor's part about TLS (`edge/trust.py`)."""

import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from edge.finding import Finding, Verdict
from edge.mqtt import Address
from edge.trust import AUTHORITY, CERTIFICATE, FLEET, KEY, Trust, TrustError

TIMEOUT_S: Final = 10.0
LISTEN_S: Final = 1.0
"""A broker that does not take a certificate says so at once; one that does waits for our first word."""
JOIN: Final = "bitfleet-edge join --token TOKEN"
CLOCK: Final = "set the clock (timedatectl set-ntp true)"
REASONS: Final = (
    ("certificate is not yet valid", "this device's clock is behind", CLOCK),
    ("certificate has expired", "its certificate is over, by this device's clock", f"{CLOCK}; else look at the server"),
    ("unsuitable certificate purpose", "it shows a certificate that is no server's", "somebody may be in between"),
    (
        "certificate verify failed",
        "it is certified by another authority",
        f"another fleet, or somebody in between? check the address; {JOIN}",
    ),
    ("certificate revoked", "this device was revoked", f"under another name: {JOIN}"),
    ("certificate expired", "this device's certificate is over", "the running agent renews it: bitfleet-edge run"),
    ("unknown ca", "the broker is another fleet's", f"check the address, or {JOIN}"),
    ("certificate required", "this device has no certificate", JOIN),
    ("bad certificate", "the broker does not take this device's certificate yet", "is the broker's clock behind?"),
    ("wrong version number", "it speaks no TLS", "is the fleet without TLS? then http:// and a new token"),
)
"""What TLS says (here or at the other end), what that means, and what to do."""


def explain(error: Exception) -> tuple[str, str] | None:
    """What a failed connection means and what to do; None where certificates are not the reason."""
    said = str(error).lower().replace("_", " ")
    return next(((meaning, advice) for word, meaning, advice in REASONS if word in said), None)


def check_broker(address: Address, trust: Trust, kind: str) -> Finding:
    """Whether the broker takes the device's certificate, and the device the broker's.

    Without a CONNECT: under the device's one name that would end the connection of a running agent.
    """
    try:
        version = _handshake(address, trust.broker(kind), named=kind != FLEET)
    except TrustError as error:
        return Finding("broker", Verdict.FAIL, str(error), JOIN)
    except OSError as error:
        meaning, advice = explain(error) or (str(error), "is the broker running, is a firewall between?")
        return Finding("broker", Verdict.FAIL, f"{address}: {meaning}", advice)
    return Finding("broker", Verdict.PASS, f"{address} takes this device's certificate, {version}")


def _handshake(address: Address, context: ssl.SSLContext, *, named: bool) -> str:
    """The version of TLS, once the other end has had time to object."""
    with (
        socket.create_connection((address.host, address.port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=address.host if named else None) as stream,
    ):
        stream.settimeout(LISTEN_S)
        try:
            if not stream.recv(1):
                raise OSError("closed the connection")
        except TimeoutError:
            pass
        return stream.version() or "TLS"


@dataclass(frozen=True)
class CertificateCheck:
    """Has the device a certificate that is good, and a key that is its own?"""

    trust: Trust

    def run(self) -> Finding:
        """Fails on one that is over or not good yet, on damage, and on a key that others may read."""
        if not self.trust.pinned:
            return Finding("certificate", Verdict.PASS, "none needed: this fleet is without TLS")
        try:
            held = self.trust.certificate
            self.trust.broker(FLEET)
        except TrustError as error:
            return Finding("certificate", Verdict.FAIL, str(error), JOIN)
        if held is None:
            return Finding("certificate", Verdict.FAIL, "none", JOIN)
        for name in (KEY, CERTIFICATE, AUTHORITY):
            path = self.trust.folder / name
            if path.stat().st_mode & 0o077:
                return Finding("certificate", Verdict.FAIL, f"{path} can be read by others", f"chmod 600 {path}")
        return _within(held.not_valid_before_utc, held.not_valid_after_utc)


def _within(begin: datetime, end: datetime) -> Finding:
    now = datetime.fromtimestamp(time.time(), UTC)
    if now < begin:
        detail = f"good from {begin:%Y-%m-%d}, and this device's clock says {now:%Y-%m-%d}"
        return Finding("certificate", Verdict.WARN, detail, CLOCK)
    if now > end:
        return Finding(
            "certificate", Verdict.FAIL, f"over since {end:%Y-%m-%d}", f"the running agent renews it; is {CLOCK} done?"
        )
    return Finding("certificate", Verdict.PASS, f"good until {end:%Y-%m-%d}; the next is asked for at half time")
