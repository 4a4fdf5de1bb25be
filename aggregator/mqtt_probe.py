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
REFUSED_VERSION: Final = frozenset({0x01, 0x84})
"""What MQTT 3.1.1 and MQTT 5 brokers answer to a protocol level they do not know."""


class NoBroker(OSError):
    """Nothing that speaks MQTT answered; the message names address and reason."""


def protocol_level(host: str, port: int, *, tls: bool = False, timeout_s: float = 5.0) -> int:
    """The newest protocol level that the broker accepts: 5, or 4 for MQTT 3.1.1.

    A refusal for any other reason than the version (a password is missing, say) still shows the version.

    Raises:
        NoBroker: nobody listens there, or the answer is no CONNACK.
    """
    try:
        with socket.create_connection((host, port), timeout_s) as plain, _stream(plain, host, tls=tls) as stream:
            stream.sendall(connect_packet(MQTT_5))
            answer = _exactly(stream, 4)
    except OSError as error:
        raise NoBroker(f"broker {host}:{port}: {error.strerror or error}") from error
    if answer[:1] != bytes([CONNACK]):
        raise NoBroker(f"broker {host}:{port}: answered {answer.hex()} to CONNECT, expected a CONNACK (20…)")
    return MQTT_311 if answer[3] in REFUSED_VERSION else MQTT_5


def connect_packet(level: int) -> bytes:
    """A CONNECT with clean start, keep-alive 5 s and no client id: the broker makes one up and keeps nothing."""
    properties = b"\0" if level == MQTT_5 else b""
    body = b"\0\4MQTT" + bytes([level, 0x02]) + b"\0\5" + properties + b"\0\0"
    return bytes([0x10, len(body)]) + body


def _stream(plain: socket.socket, host: str, *, tls: bool) -> socket.socket:
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host) if tls else plain


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise OSError(f"closed the connection after {len(data)} bytes")
        data += piece
    return data
