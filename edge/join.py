"""Joining a fleet: show a token and the public key, get the fleet's name, the aggregator's key and the broker.

    POST <aggregator>/api/v1/join {"device", "public_key" (hex), "token"; over https "request", "proof"}
    201 {"fleet", "server_key" (hex), "broker"; over https "ca", "certificate", "broker_trust"}
    202 an operator has to approve the device · problem+json otherwise

The aggregator's key is pinned by this answer: join with a token that carries a fingerprint (`edge/trust.py`), or on
this machine alone.
"""

import json
from http import HTTPStatus
from typing import Any, Final

import urllib3

from edge.membership import SYSTEM, Membership, MembershipError
from edge.trust import Trust
from protocol.signing import SigningKey, VerifyKey

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 64 * 1024


class JoinError(Exception):
    """The device is not in the fleet; the message says why and what to do."""


class Unavailable(JoinError):
    """The aggregator did not answer, or not sensibly; worth another try."""


class Pending(JoinError):
    """The aggregator knows the device and waits for an operator to approve it; ask again."""


class TokenRefused(JoinError):
    """The token is unknown, used up or expired."""


class NameTaken(JoinError):
    """Another key has joined under this name."""


def join(
    http: urllib3.PoolManager,
    url: str,
    *,
    device: str,
    public: VerifyKey,
    token: str,
    trust: Trust | None = None,
    key: SigningKey | None = None,
) -> Membership:
    """Ask once.

    Args:
        http: the connections to use.
        url: of the aggregator.
        device: the name to join under.
        public: the device's public key.
        token: the secret of one from `bitfleet-aggregator token`; a member needs none.
        trust: where authority and certificate are kept; None asks for no certificate.
        key: the device's, to prove that it asks for one.

    Raises:
        JoinError: one of its kinds.
        TrustError: what came is no certificate for this device.
    """
    body = {"device": device, "public_key": public.raw.hex(), "token": token}
    if trust is not None and key is not None:
        body |= trust.request(device, key)
    try:
        answer = http.request(
            "POST", f"{url.rstrip('/')}/api/v1/join", json=body, timeout=TIMEOUT_S, retries=False, preload_content=False
        )
        data = answer.read(MAX_ANSWER_BYTES)
        answer.release_conn()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"aggregator {url}: not reachable ({error}){_advice(error)}") from error
    values = _object(data)
    if answer.status == HTTPStatus.ACCEPTED:
        raise Pending(f"device {device}: waits for approval at aggregator {url}")
    if answer.status not in {HTTPStatus.OK, HTTPStatus.CREATED}:
        raise _refused(
            url, device, answer.status, str(values.get("detail") or values.get("title") or "no reason given")
        )
    if trust is not None and values.get("certificate"):
        if not trust.pinned:
            trust.keep_authority(str(values["ca"]))
        trust.keep_certificate(str(values["certificate"]))
    try:
        return Membership(
            device, values["fleet"], values["server_key"], values["broker"], values.get("broker_trust", SYSTEM)
        )
    except (KeyError, MembershipError) as error:
        raise Unavailable(f"aggregator {url}: answered join with {sorted(values)} ({error})") from error


def _advice(error: Exception) -> str:
    """What to do about a certificate that does not verify; asked again in vain, but the clock may be set meanwhile."""
    said = str(error)
    if "certificate has expired" in said or "not yet valid" in said:
        return "; is this device's clock right (timedatectl)?"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "; join with a token that carries its authority's fingerprint (bf1.…)"
    return ""


def _refused(aggregator: str, device: str, status: int, detail: str) -> JoinError:
    match status:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            advice = "ask the operator for a new one (bitfleet-aggregator token)"
            return TokenRefused(f"{aggregator}: token refused ({detail}); {advice}")
        case HTTPStatus.CONFLICT:
            return NameTaken(f"{aggregator}: device name {device!r} is taken ({detail}); choose another (--device)")
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Unavailable(f"{aggregator}: answered {status} ({detail})")
    return JoinError(f"{aggregator}: answered {status} to join ({detail})")


def _object(data: bytes) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
