"""The folder that holds an aggregator's truth: one process at a time, and where that process can be reached.

bitfleet.db   the database           server-key    signs what devices are told
blobs/        models and updates     admin-token   allows changes over HTTP
broker/       files of a child       endpoint.json ports and addresses of the last run
tls/          certificates and keys
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aggregator import ports

DATABASE: Final = "bitfleet.db"
BLOBS: Final = "blobs"
ENDPOINT: Final = "endpoint.json"


class StateDirError(Exception):
    """The folder cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an aggregator is reached: URLs of its HTTP door and of its broker; and its public key in hex."""

    http: str
    broker: str
    server_key: str


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it for this process alone.

    Raises:
        StateDirError: it cannot be made, or another aggregator runs on it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (folder / "lock").open("a+")
    except OSError as error:
        raise StateDirError(f"state directory {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StateDirError(
                f"state directory {folder} is in use by process {file.read().strip() or 'unknown'};"
                " stop that aggregator, or give this one its own --state"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_endpoint(folder: Path, endpoint: Endpoint) -> None:
    """Remember where this run is reached."""
    new = folder / f"{ENDPOINT}.new"
    new.write_text(json.dumps(asdict(endpoint), indent=2) + "\n")
    new.replace(folder / ENDPOINT)


def read_endpoint(folder: Path) -> Endpoint | None:
    """Where the last run was reached; None before the first, or if the note is damaged."""
    try:
        return Endpoint(**json.loads((folder / ENDPOINT).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def lasting_port(host: str, wanted: int, last_url: str) -> int:
    """The port to listen on.

    A port of 0 stands for the one of the last run, because devices remember it, or else for any free one.

    Args:
        host: where it will be bound.
        wanted: the configured port.
        last_url: what was listened on last time, or nothing.
    """
    if wanted:
        return wanted
    last = urlsplit(last_url).port or 0
    if last:
        try:
            ports.claim(host, last, what="this aggregator", change="")
        except ports.PortError:
            return ports.free_port(host)
        return last
    return ports.free_port(host)
