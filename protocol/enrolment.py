"""What joining says beside names and keys: which authority to trust, and that a certificate is asked for by its device.

A token is `bf1.<secret>.<fingerprint>` where the fleet has an authority, else the secret alone. The fingerprint is the
SHA-256 of the authority's certificate (DER) in base64url without padding: who has the token need trust nothing else.
"""

import base64
from hashlib import sha256
from typing import Final

TOKEN_MARK: Final = "bf1"  # noqa: S105 (a prefix)
PROOF: Final = b"bitfleet/1 certificate"


def fingerprint(certificate: bytes) -> str:
    """Of a certificate in DER: 43 characters."""
    return base64.urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()


def join_token(secret: str, authority: str) -> str:
    """The token that carries a fingerprint; an empty one leaves the secret alone."""
    return f"{TOKEN_MARK}.{secret}.{authority}" if authority else secret


def split_token(token: str) -> tuple[str, str]:
    """Secret and fingerprint; the latter is empty where the token carries none."""
    match token.split("."):
        case [mark, secret, authority] if mark == TOKEN_MARK:
            return secret, authority
    return token, ""


def proof_bytes(device: str, request: bytes) -> bytes:
    """What a device signs with its Ed25519 key to ask for a certificate.

    The public key that joins is no secret: without this anyone who saw it could have a certificate in its name.

    Args:
        device: its name.
        request: the certificate signing request in DER.
    """
    name = device.encode()
    return PROOF + len(name).to_bytes(2, "little") + name + request
