"""One MQTT connection, from CONNECT to its end.

paho keeps unacknowledged publishes in memory and repeats them on every reconnect for ever, even one that the broker
closes the connection for. Here a connection is used once and then forgotten with everything in it; what must survive
lies in the outbox.
"""

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

IN_FLIGHT: Final = 16
"""Unacknowledged publishes each way: 1 MB of chunks, which a small board can hold."""
SESSION_EXPIRY_S: Final = 24 * 3600
KEEP_ALIVE_S: Final = 60
TCP_TIMEOUT_S: Final = 10.0
MAX_PACKET_BYTES: Final = (1 << 28) - 1
"""The format's own limit, 256 MB, where a broker states none."""
PUBLISH_OVERHEAD_BYTES: Final = 64
"""More than the fixed header, lengths, packet id and properties of a PUBLISH, topic and payload not counted."""
_NO_SUBSCRIBERS: Final = 16
_POLL_S: Final = 0.1

V5: Final = MQTTProtocolVersion.MQTTv5
V311: Final = MQTTProtocolVersion.MQTTv311
VERSION_NAMES: Final = {V5: "5", V311: "3.1.1"}
CONNACK_TIMEOUT_S: Final = {V5: 2.0, V311: 10.0}
"""Short for MQTT 5, whose silence may mean 3.1.1 (`_may_be_older`); a slow link then works at 3.1.1 as well."""
_VERSION_COMPLAINT: Final = "protocol version"


class LinkError(Exception):
    """Nothing is wrong with the message; it could not be handed over. The outbox still has it."""


class Unreachable(LinkError):
    """No connection to the broker; the message names address and reason."""


class TurnedAway(Unreachable):
    """The broker ended a TLS connection before it said a word: it does not take the device's certificate."""


class VersionRefused(Unreachable):
    """The broker does not speak this version of MQTT."""


class NotDelivered(LinkError):
    """The broker did not acknowledge a publish."""


class AggregatorAbsent(LinkError):
    """The broker has nobody who listens to the topic."""


class PacketTooLarge(LinkError):
    """The broker would close the connection for this packet, so it was not sent."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `mqtt://host[:1883]` or `mqtts://host[:8883]`.

        Raises:
            ValueError: it is neither.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise ValueError(f"broker URL {url!r}: expected mqtt://host[:port] or mqtts://host[:port]")
        tls = parts.scheme == "mqtts"
        return cls(parts.hostname, parts.port or (8883 if tls else 1883), tls)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says, retained, when the device is gone without a word."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Ticket:
    """A publish on its way: what to wait for."""

    topic: str
    info: MQTTMessageInfo


class Connection:
    """One connection with a kept session; open it, use it from any thread, close it.

    Args:
        address: of the broker.
        client_id: the device's name; the broker keeps its session for a day.
        version: `V5` or `V311`.
        will: for the broker to publish.
        on_message: called from paho's thread with topic and payload.
        in_flight: publishes on their way at once; must not exceed the broker's `receive_maximum`.
        context: for an address with TLS; None trusts the system's authorities.
    """

    def __init__(
        self,
        address: Address,
        client_id: str,
        version: MQTTProtocolVersion,
        will: Will | None = None,
        *,
        on_message: Callable[[str, bytes], None] = lambda _topic, _payload: None,
        in_flight: int = IN_FLIGHT,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.address, self.version = address, version
        self.lost = threading.Event()
        self.packet_bytes = MAX_PACKET_BYTES
        self.receive_maximum = IN_FLIGHT
        self._answered = threading.Event()
        self._refusal: str | None = None
        self._hung_up = False
        self._subscribed = threading.Event()
        self._not_granted = False
        self._reasons: dict[int, Any] = {}
        self._on_message = on_message
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if version == V5 else False,  # MQTT 5 says it in CONNECT, and paho will not hear both
            protocol=version,
            reconnect_on_failure=False,
        )
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_publish, client.on_message = self._published, self._received
        client.on_subscribe = self._granted
        client.connect_timeout = TCP_TIMEOUT_S
        client.max_inflight_messages_set(in_flight)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        if address.tls:
            client.tls_set_context(context or ssl.create_default_context())
        self._client = client

    def open(self) -> None:
        """Connect and wait for the broker's CONNACK.

        Raises:
            VersionRefused: the broker does not speak this version.
            Unreachable: for any other reason.
        """
        timeout_s = CONNACK_TIMEOUT_S[self.version]
        try:
            self._connect()
        except (OSError, ValueError) as error:
            raise Unreachable(f"broker {self.address}: {error}") from error
        self._client.loop_start()
        answered = self._answered.wait(timeout_s)
        if answered and self._refusal is None:
            return
        self.close()
        reason = self._refusal or f"no CONNACK within {timeout_s:g} s"
        if self._may_be_older(answered=answered):
            raise VersionRefused(f"broker {self.address}: does not speak MQTT {VERSION_NAMES[self.version]} ({reason})")
        if self.address.tls and self._hung_up:
            raise TurnedAway(f"broker {self.address}: {reason}; it may not take this device's certificate any more")
        raise Unreachable(f"broker {self.address}: {reason}")

    def subscribe(self, topics: Sequence[str]) -> None:
        """Listen to `topics` at QoS 1, and wait until the broker has noted it.

        Raises:
            Unreachable: it did not, or it refuses one of them.
        """
        self._client.subscribe([(topic, 1) for topic in topics])
        timeout_s = CONNACK_TIMEOUT_S[V311]
        if not self._subscribed.wait(timeout_s):
            raise Unreachable(f"broker {self.address}: no SUBACK within {timeout_s:g} s")
        if self._not_granted:
            raise Unreachable(f"broker {self.address}: refuses subscriptions to {', '.join(topics)}")

    def change_subscription(self, before: str, after: str) -> None:
        """Listen to one topic instead of another, which may be empty, without waiting for the broker."""
        if before:
            self._client.unsubscribe(before)
        self._client.subscribe(after, 1)

    def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> Ticket:
        """Hand a publish to the network thread; `confirm` waits for its acknowledgement.

        Raises:
            PacketTooLarge: beyond what the broker accepts.
            Unreachable: the connection is gone.
        """
        size = len(payload) + len(topic.encode()) + PUBLISH_OVERHEAD_BYTES
        if size > self.packet_bytes:
            raise PacketTooLarge(
                f"publish to {topic} of about {size} bytes: broker {self.address} accepts {self.packet_bytes}"
            )
        info = self._client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or self.lost.is_set():
            raise Unreachable(f"publish to {topic}: the connection to broker {self.address} is gone")
        return Ticket(topic, info)

    def confirm(self, ticket: Ticket, timeout_s: float) -> None:
        """Wait for the broker's acknowledgement of a QoS 1 publish.

        Raises:
            NotDelivered: none within `timeout_s`, the connection was lost, or the broker refused it.
            AggregatorAbsent: the broker says that nobody listens (MQTT 5 only).
        """
        give_up_at = time.monotonic() + timeout_s
        while not ticket.info.is_published():
            if self.lost.is_set():
                raise NotDelivered(f"publish to {ticket.topic}: connection lost before the acknowledgement")
            if time.monotonic() > give_up_at:
                raise NotDelivered(f"publish to {ticket.topic}: no acknowledgement within {timeout_s:g} s")
            ticket.info.wait_for_publish(_POLL_S)
        reason = self._reasons.pop(ticket.info.mid, None)
        if reason is None:
            return
        if reason.value == _NO_SUBSCRIBERS:
            raise AggregatorAbsent(f"publish to {ticket.topic}: nobody listens at broker {self.address}")
        raise NotDelivered(f"publish to {ticket.topic}: broker {self.address} refused it ({reason})")

    def close(self) -> None:
        """Say goodbye, so that the will stays unsaid, and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()
        self.lost.set()

    def _may_be_older(self, *, answered: bool) -> bool:
        """Whether the failure may be about the version.

        Some brokers of MQTT 3.1.1 say so, some hang up, and some (amqtt) take the properties of MQTT 5 for the
        length of a client id and wait for the rest of it.
        """
        said = _VERSION_COMPLAINT in (self._refusal or "").lower()
        return said or (self.version == V5 and (not answered or self._hung_up))

    def _connect(self) -> None:
        host, port = self.address.host, self.address.port
        if self.version == V5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = IN_FLIGHT
            self._client.connect(host, port, KEEP_ALIVE_S, clean_start=False, properties=properties)
        else:
            self._client.connect(host, port, KEEP_ALIVE_S)

    def _connected(self, _client: Client, _userdata: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"refused the connection: {reason}"
        else:
            self.packet_bytes = getattr(properties, "MaximumPacketSize", MAX_PACKET_BYTES)
            self.receive_maximum = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
        self._answered.set()

    def _disconnected(self, _client: Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not self._answered.is_set():
            self._refusal, self._hung_up = f"closed the connection before CONNACK ({reason})", True
        self.lost.set()
        self._answered.set()

    def _published(self, _client: Client, _userdata: Any, mid: int, reason: Any, _properties: Any) -> None:
        if reason.is_failure or reason.value == _NO_SUBSCRIBERS:
            self._reasons[mid] = reason

    def _granted(self, _client: Client, _userdata: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self._not_granted = any(reason.is_failure for reason in reasons)
        self._subscribed.set()

    def _received(self, _client: Client, _userdata: Any, message: Any) -> None:
        self._on_message(message.topic, bytes(message.payload))
