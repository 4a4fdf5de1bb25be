"""TCP ports: pick a free one, wait for one to come free, and say who holds it."""

import errno
import socket
import time
from pathlib import Path

PATIENCE_S = 5.0
"""A predecessor that was killed takes its children with it; the kernel needs a moment to give back their ports."""
LISTENING = "0A"
"""The code of state LISTEN in /proc/net/tcp."""


class PortError(Exception):
    """The port cannot be listened on; the message names port, reason and what to change."""


def free_port(host: str, preferred: int = 0) -> int:
    """A port that can be bound on `host`: `preferred` if it is free, else one that the kernel picks.

    Raises:
        OSError: `host` is no address of this machine.
    """
    if preferred and is_free(host, preferred):
        return preferred
    with _bound(host, 0) as listener:
        return int(listener.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether `port` can be bound on `host` now.

    Raises:
        OSError: for any other reason than that it is in use.
    """
    try:
        _bound(host, port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def claim(host: str, port: int, *, what: str, change: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until `port` is free.

    Args:
        host: where it will be bound.
        port: which one.
        what: what it is for, as in "the HTTP door".
        change: how to choose another one.
        patience_s: how long to wait for it.

    Raises:
        PortError: it is still held, or can never be had: a privileged port, another machine's address.
    """
    give_up_at = time.monotonic() + patience_s
    try:
        while not is_free(host, port):
            if time.monotonic() > give_up_at:
                raise PortError(f"port {port} on {host} for {what} is in use by {holder(port)}; {change}")
            time.sleep(0.1)
    except OSError as error:
        raise PortError(f"port {port} on {host} for {what}: {error.strerror}; {change}") from error


def reachable(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (nothing is bound here)


def holder(port: int) -> str:
    """The program that listens on `port`, as "name (process 123)", as far as this user may see."""
    inodes = _listening_inodes(port)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(link.readlink())
        except OSError:
            continue  # gone in the meantime, or another user's
        if target.startswith("socket:[") and target[8:-1] in inodes:
            process = link.parents[1]
            return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "another program"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As every server does: only a listener is in the way, not the remains of old connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
