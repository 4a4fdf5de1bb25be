"""Where the broker is: a URL, a Mosquitto child, or the embedded one, in this order when asked for `auto`."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from aggregator import ports
from aggregator.access import mosquitto_access
from aggregator.child import Child
from aggregator.keyring import REVOKED, SERVER, Keyring
from aggregator.mqtt_probe import protocol_level

AUTO: Final = "auto"
MOSQUITTO: Final = "mosquitto"
EMBEDDED: Final = "embedded"
ACCESS: Final = "access"
DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
PACKET_BYTES: Final = 256 * 1024
"""A chunk of 64 kB with room to spare; a stranger cannot make the broker hold more in one piece."""
QUEUED_MESSAGES: Final = 20_000
"""For one sleeping device. Mosquitto's default of 1000 drops the rest without telling anyone."""


class BrokerError(Exception):
    """No broker can be had; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """`mqtt://[user:password@]host[:port]`, or `mqtts://` for TLS."""

    host: str
    port: int
    tls: bool = False
    username: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is none of a broker.
        """
        parts = urlsplit(text)
        expected = "expected mqtt://host:port or mqtts://host:port"
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(expected)
        try:
            port = parts.port or DEFAULT_PORTS[parts.scheme]
        except ValueError as error:
            raise ValueError(f"{expected}; {error}") from error
        return cls(
            parts.hostname, port, parts.scheme == "mqtts", unquote(parts.username or ""), unquote(parts.password or "")
        )

    def __str__(self) -> str:
        """The URL without user and password, fit to be logged and shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def choose(wanted: str) -> str:
    """What `wanted` means on this machine: a URL, `mosquitto` or `embedded`.

    Raises:
        BrokerError: Mosquitto is asked for by name and not installed.
    """
    if wanted == AUTO:
        return MOSQUITTO if _mosquitto() else EMBEDDED
    if wanted == MOSQUITTO and _mosquitto() is None:
        raise BrokerError("broker 'mosquitto': the program is not installed; install it, or use 'embedded' or a URL")
    return wanted


@dataclass(frozen=True, slots=True)
class Guard:
    """How a child lets in certificates of the fleet alone, each to its own topics.

    Attributes:
        keyring: the certificates.
        root: of the fleet's topics.
    """

    keyring: Keyring
    root: str


@contextmanager
def open_broker(
    wanted: str, *, host: str, port: int, folder: Path, report: Callable[[str], None], guard: Guard | None = None
) -> Iterator[BrokerUrl]:
    """A broker for as long as the block runs.

    Args:
        wanted: `auto`, `mosquitto`, `embedded` or a URL.
        host: the address a child listens on.
        port: its port.
        folder: where a child keeps its files.
        report: told in a sentence when a child died and when it is back.
        guard: who may connect to a child; None lets everyone in.

    Raises:
        BrokerError: the program is not installed, or has no TLS where that is asked for.
        PortError: another program has the port.
        ChildError: it does not start.
    """
    chosen = choose(wanted)
    if chosen not in {MOSQUITTO, EMBEDDED}:
        yield BrokerUrl.parse(chosen)
        return
    if chosen == EMBEDDED and guard is not None:
        raise BrokerError(
            "the embedded broker is for this machine alone: install Mosquitto, name a broker by its URL (--broker),"
            " or, in a network where everyone may read and disturb everything, turn TLS off (--tls off)"
        )
    ports.claim(
        host, port, what="the broker", change="choose another with --broker-host and --broker-port (0: any free one)"
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = BrokerUrl(ports.reachable(host), port, tls=guard is not None)
    command = mosquitto_command(host, port, folder, guard) if chosen == MOSQUITTO else embedded_command(host, port)
    probe = guard.keyring.client_context("probe") if guard else None
    with Child(
        command,
        log=folder / "broker.log",
        ready=lambda: protocol_level(url.host, url.port, context=probe),
        report=report,
        environment=_import_path(),
    ) as child:
        if guard:
            guard.keyring.listen(lambda: child.signal(signal.SIGHUP))  # it reads certificates and lists again
        yield url


def mosquitto_command(host: str, port: int, folder: Path, guard: Guard | None = None) -> list[str]:
    """Write the configuration of a Mosquitto child and say how to start it."""
    path = folder / "mosquitto.conf"
    path.write_text(mosquitto_configuration(host, port, folder, guard))
    if guard:
        (folder / ACCESS).write_text(mosquitto_access(guard.root))
        (folder / ACCESS).chmod(0o600)
    return [_mosquitto() or MOSQUITTO, "-c", str(path)]


def mosquitto_configuration(host: str, port: int, folder: Path, guard: Guard | None = None) -> str:
    """Mosquitto 2 on one address: kept sessions survive its restart, packets are bounded, logs say what is wrong."""
    lines = [
        f"listener {port} {host}",
        *(_guarded(guard.keyring, folder) if guard else ["allow_anonymous true"]),  # then only messages are signed
        f"max_packet_size {PACKET_BYTES}",
        f"max_queued_messages {QUEUED_MESSAGES}",
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_interval 30",
        "persistent_client_expiration 1d",
        "set_tcp_nodelay true",
        "log_dest stdout",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == 0:
        lines.append("user root")  # else it becomes user mosquitto, who cannot write here
    return "\n".join(lines) + "\n"


def _guarded(keyring: Keyring, folder: Path) -> list[str]:
    """A client is who its certificate says: user and client id are its common name, whatever it says itself."""
    return [
        "allow_anonymous false",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "tls_version tlsv1.2",
        f"cafile {keyring.certificate('ca')}",
        f"certfile {keyring.certificate(SERVER)}",
        f"keyfile {keyring.key(SERVER)}",
        f"crlfile {keyring.folder / REVOKED}",
        f"acl_file {folder / ACCESS}",
    ]


def embedded_command(host: str, port: int) -> list[str]:
    """How to start the embedded broker."""
    return [sys.executable, "-m", "aggregator.embedded_broker", "--host", host, "--port", str(port)]


def _mosquitto() -> str | None:
    # Debian installs it where users do not look.
    return shutil.which(MOSQUITTO) or shutil.which(MOSQUITTO, path="/usr/sbin:/usr/local/sbin")


def _import_path() -> dict[str, str]:
    """So that a child finds this package however the parent found it."""
    root = str(Path(__file__).resolve().parents[1])
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
