"""The aggregator's connection to the broker: one MQTT client that seals what goes out and queues what comes in.

Clean start, because a hoarded queue is worse than none: whatever matters is in the database or in a device's outbox
and is said again.

paho calls `on_publish` while it holds the lock that `publish` takes, so a callback here may neither wait for the
coordinator nor take a lock that the coordinator holds while it publishes. Hence the inbox has no bound, the
back-pressure on received messages is a semaphore, and the table of rows in flight is the coordinator's alone.
"""

import itertools
import math
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Queue
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from aggregator.broker import PACKET_BYTES, BrokerUrl
from aggregator.mqtt_probe import MQTT_5, NoBroker, protocol_level
from aggregator.outbox import message_of
from aggregator.store import Outgoing
from protocol.envelope import AGGREGATOR, Stamp, seal
from protocol.messages import Message, ServerState
from protocol.signing import SigningKey
from protocol.topics import Topics

KEEP_ALIVE_S: Final = 30
LONGEST_PAUSE_S: Final = 30
PROBE_EVERY_S: Final = 1.0
HEADER_BYTES: Final = 16
"""A PUBLISH packet is its topic, its payload and less than this."""
MAX_EXPIRY_S: Final = (1 << 32) - 1
IN_FLIGHT: Final = 100
"""Messages sent and not yet acknowledged; more wait inside paho."""
GOODBYE_WITHIN_S: Final = 2.0
UNREAD: Final = 512
"""Received messages that wait to be handled, 32 MB of chunks at most; then the broker has to wait."""
AT_MOST_ONCE: Final = 0
AT_LEAST_ONCE: Final = 1


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived."""

    topic: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker has acknowledged paho's message `mid`; `Link.settle` says which outbox row that was."""

    mid: int


@dataclass(frozen=True, slots=True)
class Connection:
    """The link came up or went down, in a sentence."""

    up: bool
    detail: str


Event = Received | Sent | Connection


class PacketTooLarge(Exception):
    """The broker would drop the connection over this packet, again after every reconnect."""


class Link:
    """A connection that repairs itself.

    Args:
        url: the broker.
        topics: of the fleet.
        shard: whose uploads are received.
        key: the server's.
        boot: how often this aggregator was started; the first half of every stamp.
        inbox: where events go; unbounded. Call `handled` once for every `Received`.
        clock: wall clock in seconds.
        context: for TLS; None leaves it to the system's authorities, where the URL asks for TLS.
        name: its client id, if the broker asks for the one in its certificate.
    """

    def __init__(
        self,
        *,
        url: BrokerUrl,
        topics: Topics,
        shard: str,
        key: SigningKey,
        boot: int,
        inbox: Queue[Any],
        clock: Callable[[], float],
        context: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        self._url, self._topics, self._shard, self._key, self._boot = url, topics, shard, key, boot
        self._inbox, self._clock, self._name = inbox, clock, name or f"{AGGREGATOR}-{topics.fleet}"
        self._context = (context or ssl.create_default_context()) if url.tls else None
        self._unread = threading.Semaphore(UNREAD)
        self._sequence = itertools.count(1)
        self._rows: dict[int, int] = {}
        """Outbox rows in flight, by paho's message id. The coordinator's own."""
        self._in_flight: set[int | None] = set()
        self._client: mqtt.Client | None = None
        self._stopping, self._up = threading.Event(), threading.Event()
        self._packet_bytes = PACKET_BYTES
        self._opener = threading.Thread(target=self._open, name="link-opener", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted this client."""
        return self._up.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until connected; whether it is."""
        return self._up.wait(timeout_s)

    def start(self) -> None:
        """Connect, now or as soon as the broker can be reached."""
        self._opener.start()

    def stop(self) -> None:
        """Say goodbye, which a will would say only for a crash, and disconnect."""
        self._stopping.set()
        self._opener.join()
        client = self._client
        if client is None:
            return
        if self.connected:
            state = self._topics.server_state
            offline = self._seal(state, ServerState(online=False, fleet=self._topics.fleet))
            with suppress(RuntimeError):  # the connection broke just now; then the will speaks
                client.publish(state, offline, AT_LEAST_ONCE, retain=True).wait_for_publish(GOODBYE_WITHIN_S)
        client.disconnect()
        client.loop_stop()

    def in_flight(self, row: Outgoing) -> bool:
        """Whether an outbox row was handed over and is not yet settled."""
        return row.id in self._in_flight

    def settle(self, sent: Sent) -> int | None:
        """The id of the outbox row that the broker has now; None for what was no row."""
        row = self._rows.pop(sent.mid, None)
        self._in_flight.discard(row)
        return row

    def handled(self) -> None:
        """Make room for another received message."""
        self._unread.release()

    def publish(self, row: Outgoing) -> None:
        """Send an outbox row; `Sent` follows when the broker has it, however often the connection breaks.

        Raises:
            PacketTooLarge: the broker does not take packets of this size.
        """
        client = self._client
        if client is None:
            return  # the row stays in the outbox
        data = self._seal(row.topic, message_of(row))
        size = len(data) + len(row.topic.encode()) + HEADER_BYTES
        if size > self._packet_bytes:
            raise PacketTooLarge(f"packet of {size} bytes to {row.topic}: broker takes at most {self._packet_bytes}")
        info = client.publish(row.topic, data, AT_LEAST_ONCE, row.retain, self._expiry(row))
        self._rows[info.mid] = row.id
        self._in_flight.add(row.id)

    def announce(self, topic: str, data: bytes) -> None:
        """Publish bytes that the broker keeps, unsigned, for listeners outside the fleet; without a connection, not."""
        if self._client is not None and self.connected:
            self._client.publish(topic, data, AT_LEAST_ONCE, retain=True)

    def broadcast(self, topic: str, data: bytes) -> None:
        """Publish bytes once and forget them; without a connection, or beyond what the broker takes, not even once."""
        size = len(data) + len(topic.encode()) + HEADER_BYTES
        if self._client is not None and self.connected and size <= self._packet_bytes:
            self._client.publish(topic, data, AT_MOST_ONCE)

    def _expiry(self, row: Outgoing) -> Properties | None:
        if row.expires_at is None or self._client is None or self._client.protocol != mqtt.MQTTv5:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = min(max(math.ceil(row.expires_at - self._clock()), 1), MAX_EXPIRY_S)
        return properties

    def _seal(self, topic: str, message: Message) -> bytes:
        stamp = Stamp(self._boot, next(self._sequence))
        time_ms = max(0, int(self._clock() * 1000))
        return seal(message, topic=topic, sender=AGGREGATOR, stamp=stamp, time_ms=time_ms, key=self._key)

    def _open(self) -> None:
        """Find out what the broker speaks, then leave the rest to paho, which reconnects for ever."""
        told = ""
        while not self._stopping.is_set():
            try:
                level = protocol_level(self._url.host, self._url.port, context=self._context)
            except NoBroker as error:
                if str(error) != told:
                    self._inbox.put(Connection(up=False, detail=(told := str(error))))
                self._stopping.wait(PROBE_EVERY_S)
            else:
                self._client = self._made(mqtt.MQTTv5 if level == MQTT_5 else mqtt.MQTTv311)
                self._client.loop_start()  # only now: its callbacks tell others to publish, which needs the client
                return

    def _made(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        name = self._name
        if protocol == mqtt.MQTTv5:
            client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=protocol)
        else:
            client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=True, protocol=protocol)
        if self._url.username:
            client.username_pw_set(self._url.username, self._url.password)
        if self._context is not None:
            client.tls_set_context(self._context)
        state = self._topics.server_state
        will = self._seal(state, ServerState(online=False, fleet=self._topics.fleet))
        client.will_set(state, will, AT_LEAST_ONCE, retain=True)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_subscribe = self._on_subscribe
        clean: Any = {"clean_start": True} if protocol == mqtt.MQTTv5 else {}
        client.connect_async(self._url.host, self._url.port, KEEP_ALIVE_S, **clean)
        return client

    def _on_connect(
        self, client: mqtt.Client, _: Any, _flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._inbox.put(Connection(up=False, detail=f"broker {self._url} refused the connection: {reason}"))
            return
        self._packet_bytes = getattr(properties, "MaximumPacketSize", PACKET_BYTES)
        names = self._topics.subscriptions_of_aggregator(self._shard)
        if client.protocol == mqtt.MQTTv5:
            client.subscribe([(name, SubscribeOptions(qos=AT_LEAST_ONCE)) for name in names])
        else:
            client.subscribe([(name, AT_LEAST_ONCE) for name in names])

    def _on_subscribe(
        self, client: mqtt.Client, _: Any, _mid: int, reasons: list[ReasonCode], _p: Properties | None
    ) -> None:
        """Only now can devices be heard: said any sooner, "online" would bring manifests that nobody receives."""
        refused = next((reason for reason in reasons if reason.is_failure), None)
        if refused is not None:
            self._inbox.put(Connection(up=False, detail=f"broker {self._url} refused a subscription: {refused}"))
            return
        state = self._topics.server_state
        online = self._seal(state, ServerState(online=True, fleet=self._topics.fleet))
        client.publish(state, online, AT_LEAST_ONCE, retain=True)
        self._up.set()
        self._inbox.put(Connection(up=True, detail=f"broker {self._url} connected, {_spoken(client)}"))

    def _on_disconnect(self, _c: mqtt.Client, _: Any, _flags: Any, reason: ReasonCode, _p: Properties | None) -> None:
        self._up.clear()
        if not self._stopping.is_set():
            self._inbox.put(Connection(up=False, detail=f"broker {self._url} lost: {reason}"))

    def _on_message(self, _client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        while not self._unread.acquire(timeout=1.0):
            if self._stopping.is_set():
                return
        self._inbox.put(Received(message.topic, bytes(message.payload)))

    def _on_publish(self, _c: mqtt.Client, _: Any, mid: int, _reason: ReasonCode, _p: Properties) -> None:
        self._inbox.put(Sent(mid))


def _spoken(client: mqtt.Client) -> str:
    return "MQTT 5" if client.protocol == mqtt.MQTTv5 else "MQTT 3.1.1"
