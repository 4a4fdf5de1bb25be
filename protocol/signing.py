"""Ed25519 (RFC 8032) behind two small classes; the only place that knows the `cryptography` package."""

from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import Forged, Malformed

SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 32


class VerifyKey:
    """A public key of 32 bytes.

    Raises:
        Malformed: not 32 bytes.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise Malformed(f"public key of {len(raw)} bytes: expected {KEY_BYTES}")
        self.raw = raw
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            Forged: it is not this key's signature of `data`.
        """
        try:
            self._key.verify(signature, data)
        except InvalidSignature as error:
            raise Forged("signature does not match the sender's key, the topic and the content") from error


class SigningKey:
    """A private key; `raw` is its 32-byte seed, to be kept at mode 0600.

    Raises:
        Malformed: not 32 bytes.
    """

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise Malformed(f"private key of {len(raw)} bytes: expected {KEY_BYTES}")
        self.raw = raw
        self._key = Ed25519PrivateKey.from_private_bytes(raw)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> VerifyKey:
        """The key that others check with."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature of `data`."""
        return self._key.sign(data)
