"""Secrets of the aggregator: files in the state directory that only their owner can read, made at the first start."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from protocol.signing import KEY_BYTES, SigningKey

SERVER_KEY: Final = "server-key"
ADMIN_TOKEN: Final = "admin-token"  # noqa: S105 (a file name)
OWNER_ONLY: Final = 0o600


class SecretError(Exception):
    """A secret cannot be used; the message names the file and what to do."""


def server_key(folder: Path) -> SigningKey:
    """The key the aggregator signs with; devices pin its public half when they join.

    Raises:
        SecretError: the file is damaged, or others can read it.
    """
    path = folder / SERVER_KEY
    raw = kept(path, lambda: SigningKey.generate().raw)
    if len(raw) != KEY_BYTES:
        raise SecretError(f"server key {path} has {len(raw)} bytes, expected {KEY_BYTES}: restore it from a backup")
    return SigningKey(raw)


def admin_token(folder: Path) -> str:
    """What an operator shows to change anything over HTTP.

    Raises:
        SecretError: the file is damaged, or others can read it.
    """
    path = folder / ADMIN_TOKEN
    token = kept(path, lambda: secrets.token_urlsafe(32).encode()).decode("ascii", "replace").strip()
    if not token:
        raise SecretError(f"admin token {path} is empty: remove it to get a new one")
    return token


def kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of a secret file, made if it is not there.

    Raises:
        SecretError: others can read it.
    """
    if not path.exists():
        write_whole(path, make())
    if path.stat().st_mode & 0o077:
        raise SecretError(f"{path} can be read by others: run chmod 600 {path}")
    return path.read_bytes()


def write_whole(path: Path, data: bytes) -> None:
    """Whole or not at all: a power cut at the first start must not leave half a key."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
