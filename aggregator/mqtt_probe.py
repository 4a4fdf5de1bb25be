"""Ask a broker whether it speaks MQTT, and which version, with one CONNECT packet made by hand.

An open port is no working broker, and a client library hides the difference. Reference: MQTT 5.0 (OASIS 2019),
sections 3.1 and 3.2.
"""

import socket
import ssl
from typing import Final

MQTT_311: Final = 4
MQTT_5: Final = 5
CONNACK: Final = 0x20
DISCONNECT: Final = b"\xe0\0"
REFUSED_VERSION: Final = frozenset({0x01, 0x84})
"""What MQTT 3.1.1 and MQTT 5 brokers answer to a protocol level they do not know."""


class NoBroker(OSError):
    """Nothing that speaks MQTT answered; the message names address and reason."""


def protocol_level(host: str, port: int, *, context: ssl.SSLContext | None = None, timeout_s: float = 5.0) -> int:
    """The newest protocol level that the broker accepts: 5, or 4 for MQTT 3.1.1.

    A refusal for any other reason than the version (a password is missing, say) still shows the version.

    Args:
        host: its address.
        port: its port.
        context: for TLS; None for a connection without it.
        timeout_s: how long to wait.

    Raises:
        NoBroker: nobody listens there, or the answer is no CONNACK.
    """
    try:
        with socket.create_connection((host, port), timeout_s) as plain, _stream(plain, host, context) as stream:
            stream.sendall(connect_packet(MQTT_5))
            answer = _exactly(stream, 4)
    except OSError as error:
        raise NoBroker(f"broker {host}:{port}: {error.strerror or error}") from error
    if answer[:1] != bytes([CONNACK]):
        raise NoBroker(f"broker {host}:{port}: answered {answer.hex()} to CONNECT, expected a CONNACK (20…)")
    return MQTT_311 if answer[3] in REFUSED_VERSION else MQTT_5


def take_over(host: str, port: int, client: str, *, context: ssl.SSLContext, timeout_s: float = 5.0) -> None:
    """Connect as `client` and leave: the broker ends its connection, if there is one, and forgets its session.

    Raises:
        NoBroker: nobody listens there, or the broker does not let us in.
    """
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            _stream(plain, host, context) as stream,
        ):
            stream.sendall(connect_packet(MQTT_311, client))
            answer = _exactly(stream, 4)
            stream.sendall(DISCONNECT)
    except OSError as error:
        raise NoBroker(f"broker {host}:{port}: {error.strerror or error}") from error
    if answer != bytes([CONNACK, 2, 0, 0]):
        raise NoBroker(f"broker {host}:{port}: answered {answer.hex()} to CONNECT as {client}, expected 20020000")


def connect_packet(level: int, client: str = "") -> bytes:
    """A CONNECT with clean start and keep-alive 5 s; without a client id the broker makes one up and keeps nothing."""
    properties = b"\0" if level == MQTT_5 else b""
    name = client.encode()
    body = b"\0\4MQTT" + bytes([level, 0x02]) + b"\0\5" + properties + len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body


def _stream(plain: socket.socket, host: str, context: ssl.SSLContext | None) -> socket.socket:
    return plain if context is None else context.wrap_socket(plain, server_hostname=host)


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise OSError(f"closed the connection after {len(data)} bytes")
        data += piece
    return data
