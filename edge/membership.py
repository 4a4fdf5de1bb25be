"""Who the device is and whom it trusts: its key, made here and never leaving, and what joining a fleet gave it.

Both files are written once. The membership needs no checksum: a damaged one does not parse, or names a key that no
message of the aggregator verifies with, and is repaired by joining again.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.files import remove, write_atomic
from edge.mqtt import Address
from edge.trust import FLEET
from protocol.errors import ProtocolError
from protocol.signing import KEY_BYTES, SigningKey, VerifyKey
from protocol.topics import check_name

SYSTEM: Final = "system"
KEY_FILE: Final = "device.key"
MEMBERSHIP_FILE: Final = "membership.json"


class MembershipError(Exception):
    """Key or membership cannot be used; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What the aggregator said when the device joined.

    Attributes:
        device: the name it was accepted under.
        fleet: whose topics it uses.
        server_key: the aggregator's public key in hex, pinned from now on.
        broker: URL of the broker.
        broker_trust: who certifies the broker, where it speaks TLS: `fleet` or `system`.

    Raises:
        MembershipError: a value is not what it must be.
    """

    device: str
    fleet: str
    server_key: str
    broker: str
    broker_trust: str = SYSTEM

    def __post_init__(self) -> None:
        try:
            check_name(self.device, "device")
            check_name(self.fleet, "fleet")
            VerifyKey(bytes.fromhex(self.server_key))
            Address.parse(self.broker)
            if self.broker_trust not in {FLEET, SYSTEM}:
                raise ValueError(f"broker_trust = {self.broker_trust!r}: expected {FLEET} or {SYSTEM}")  # noqa: TRY301
        except (ProtocolError, ValueError, TypeError, AttributeError) as error:
            raise MembershipError(f"membership of device {self.device!r}: {error}") from error


def device_key(state_dir: Path) -> SigningKey:
    """The device's key, made on first use and readable by its owner alone.

    Raises:
        MembershipError: the file is damaged. It is left alone: a new key would be a new device.
    """
    path = state_dir / KEY_FILE
    if not path.exists():
        write_atomic(path, SigningKey.generate().raw, mode=0o600)
    raw = path.read_bytes()
    if len(raw) != KEY_BYTES:
        raise MembershipError(
            f"device key {path}: {len(raw)} bytes, expected {KEY_BYTES};"
            f" restore it, or remove it and join again under another name"
        )
    return SigningKey(raw)


def load_membership(state_dir: Path) -> Membership | None:
    """What joining gave, None before that.

    Raises:
        MembershipError: the file is damaged.
    """
    path = state_dir / MEMBERSHIP_FILE
    if not path.exists():
        return None
    try:
        return Membership(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, MembershipError) as error:
        raise MembershipError(f"membership file {path}: {error}; remove it and join again with a new token") from error


def save_membership(state_dir: Path, membership: Membership) -> None:
    """Keep what joining gave."""
    write_atomic(state_dir / MEMBERSHIP_FILE, json.dumps(asdict(membership), indent=1).encode())


def forget_membership(state_dir: Path) -> None:
    """Leave the fleet; the key stays."""
    remove(state_dir / MEMBERSHIP_FILE)
