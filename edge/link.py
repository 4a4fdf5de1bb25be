"""The agent's line to the fleet: always coming back, never saying more than the broker takes.

On every connect: a new session number, the will, the subscriptions, birth and state (BF-020). MQTT 5 comes first and
3.1.1 when it is refused; what worked is tried first next time. A thread of its own reconnects with back-off.
"""

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from paho.mqtt.enums import MQTTProtocolVersion

from edge.backoff import CAP_S, delays_s
from edge.mqtt import (
    IN_FLIGHT,
    PUBLISH_OVERHEAD_BYTES,
    V5,
    V311,
    VERSION_NAMES,
    Address,
    AggregatorAbsent,
    Connection,
    LinkError,
    PacketTooLarge,
    Ticket,
    TurnedAway,
    Unreachable,
    VersionRefused,
    Will,
)
from edge.sealing import Seal
from edge.trust import TrustError
from protocol.chunks import DEFAULT_CHUNK_BYTES, MIN_CHUNK_BYTES
from protocol.errors import RemoteProtocolError
from protocol.messages import Birth, Message, State, Status, Telemetry
from protocol.topics import Topics

log = logging.getLogger(__name__)

ACK_TIMEOUT_S: Final = 20.0
GOODBYE_TIMEOUT_S: Final = 2.0
STABLE_AFTER_S: Final = 10.0
"""A connection that lasted this long was a good one: the next back-off begins anew."""


class Link:
    """Keeps one device connected while the context lasts.

    Args:
        address: of the broker.
        device: its name.
        topics: of its fleet.
        seal: signs and checks.
        next_session: a number that rises with every call, durably.
        birth: what the device is, for a session number.
        status: whether it can work now.
        on_up: called from the link's thread after each connect, with birth and state already on their way.
        on_message: called from the network's thread with each message that passed every check.
        on_piece: called from the network's thread with digest, number and bytes of each piece of a broadcast.
        precision: whose broadcasts to listen to, empty for none.
        max_backoff_s: longest pause between two attempts to connect.
        rng: for the jitter.
        context: asked before each connect to an address with TLS; None trusts the system's authorities.
    """

    def __init__(
        self,
        address: Address,
        device: str,
        topics: Topics,
        seal: Seal,
        *,
        next_session: Callable[[], int],
        birth: Callable[[int], Birth],
        status: Callable[[], Status],
        on_up: Callable[[], None] = lambda: None,
        on_message: Callable[[Message], None] = lambda _: None,
        on_piece: Callable[[bytes, int, bytes], None] = lambda _digest, _number, _data: None,
        precision: str = "",
        max_backoff_s: float = CAP_S,
        rng: random.Random | None = None,
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        self._address, self._device, self._topics, self._seal = address, device, topics, seal
        self._next_session, self._birth, self._status = next_session, birth, status
        self._on_up, self._on_message, self._on_piece = on_up, on_message, on_piece
        self._precision, self._context = precision, context
        self._rng, self._max_backoff_s = rng or random.Random(), max_backoff_s
        self._version, self._in_flight = V5, IN_FLIGHT
        self._session = 0
        self._connection: Connection | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_connected, name="link", daemon=True)
        self.sent_bytes = 0
        self.received_bytes = 0
        self.turned_away = False
        """Whether the broker did not take the device's certificate when it was tried last."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        connection = self._connection
        if connection is not None and not connection.lost.is_set():
            self._say_goodbye(connection)
            connection.close()
        self._thread.join()

    @property
    def connected(self) -> bool:
        """Whether a publish has a chance right now."""
        return self._connection is not None and not self._connection.lost.is_set()

    @property
    def version(self) -> str:
        """The version of MQTT in use, or to be tried next."""
        return VERSION_NAMES[self._version]

    @property
    def packet_bytes(self) -> int:
        """The largest packet the broker accepts.

        Raises:
            Unreachable: there is no connection to ask.
        """
        return self._live().packet_bytes

    def chunk_bytes(self, topic: str) -> int:
        """How much of a payload fits one publish to `topic` (BF-031).

        Raises:
            PacketTooLarge: the broker accepts less than the smallest chunk.
            Unreachable: there is no connection to ask.
        """
        room = self.packet_bytes - len(topic.encode()) - PUBLISH_OVERHEAD_BYTES
        if room < MIN_CHUNK_BYTES:
            raise PacketTooLarge(
                f"broker {self._address} accepts packets of {self.packet_bytes} bytes:"
                f" expected room for a chunk of {MIN_CHUNK_BYTES}"
            )
        return min(DEFAULT_CHUNK_BYTES, room)

    def send(self, topic: str, message: Message | bytes, *, qos: int = 1, retain: bool = False) -> Ticket:
        """Publish a message, sealed, or a chunk as it is; `confirm` waits for the acknowledgement.

        Raises:
            LinkError: no connection, or more than the broker accepts.
        """
        data = message if isinstance(message, bytes) else self._seal.close(message, topic)
        ticket = self._live().send(topic, data, qos=qos, retain=retain)
        self.sent_bytes += len(data) + len(topic)
        return ticket

    def confirm(self, ticket: Ticket, timeout_s: float = ACK_TIMEOUT_S) -> None:
        """Wait for the broker's acknowledgement.

        Raises:
            LinkError: there was none, or nobody listens.
        """
        self._live().confirm(ticket, timeout_s)

    def publish(self, topic: str, message: Message, *, timeout_s: float = ACK_TIMEOUT_S) -> None:
        """Send and confirm.

        Raises:
            LinkError: as `send` and `confirm`.
        """
        self.confirm(self.send(topic, message), timeout_s)

    def report(self, telemetry: Telemetry) -> None:
        """Say how far the device is, at QoS 0.

        Raises:
            LinkError: there is no connection.
        """
        self.send(self._topics.device(self._device, "tele"), telemetry, qos=0)

    def announce(self) -> None:
        """Say birth and state again: the device has changed.

        Raises:
            LinkError: there is no connection; the next one says them anyway.
        """
        self.send(self._topics.device(self._device, "birth"), self._birth(self._session), retain=True)
        self._say(self._status())

    def listen(self, precision: str) -> None:
        """Hear the broadcasts for a precision from now on, instead of another's; on every later connection too."""
        before, self._precision = self._precision, precision
        if self.connected:
            self._live().change_subscription(
                self._topics.models(before) if before else "", self._topics.models(precision)
            )

    def _subscriptions(self) -> tuple[str, ...]:
        models = (self._topics.models(self._precision),) if self._precision else ()
        return (*self._topics.subscriptions_of_device(self._device), *models)

    def _say(self, status: Status) -> Ticket:
        return self.send(self._topics.device(self._device, "state"), State(status, self._session), retain=True)

    def _say_goodbye(self, connection: Connection) -> None:
        try:
            connection.confirm(self._say(Status.OFFLINE), GOODBYE_TIMEOUT_S)
        except AggregatorAbsent:
            pass  # it is retained: the aggregator finds it when it is back
        except LinkError as error:
            log.warning("device %s: could not say goodbye: %s", self._device, error)

    def _live(self) -> Connection:
        connection = self._connection
        if connection is None or connection.lost.is_set():
            raise Unreachable(f"broker {self._address}: not connected")
        return connection

    def _keep_connected(self) -> None:
        delays, complaint = self._delays(), ""
        while not self._closing.is_set():
            started_s = time.monotonic()
            try:
                connection = self._connect()
            except (LinkError, TrustError, OSError) as error:  # OSError: the journal's disk is full
                if str(error) != complaint:  # once per event: a broker that is away for a night fills no disk
                    log.warning("device %s: %s; trying again", self._device, error)
                complaint, self.turned_away = str(error), isinstance(error, TurnedAway)
            else:
                complaint, self.turned_away = "", False
                connection.lost.wait()
                connection.close()
                if not self._closing.is_set():
                    log.warning("device %s: connection to broker %s lost", self._device, self._address)
                if time.monotonic() - started_s > STABLE_AFTER_S:
                    delays = self._delays()
            self._closing.wait(next(delays))

    def _delays(self) -> Iterator[float]:
        return delays_s(self._rng, cap_s=self._max_backoff_s)

    def _connect(self) -> Connection:
        """A connection on which the device has introduced itself."""
        try:
            connection = self._open(self._version)
        except VersionRefused:
            other = V311 if self._version == V5 else V5
            connection = self._open(other)
            self._version = other
        self._connection = connection
        try:
            connection.subscribe(self._subscriptions())
            self.announce()
        except LinkError:
            connection.close()
            raise
        if self._closing.is_set():  # the context ended while we connected
            connection.close()
            return connection
        log.info("device %s: connected to broker %s, MQTT %s", self._device, self._address, self.version)
        self._on_up()
        return connection

    def _open(self, version: MQTTProtocolVersion) -> Connection:
        self._session = self._next_session()
        topic = self._topics.device(self._device, "state")
        will = Will(topic, self._seal.close(State(Status.OFFLINE, self._session), topic))
        connection = Connection(
            self._address,
            self._device,
            version,
            will,
            on_message=self._receive,
            in_flight=self._in_flight,
            context=self._context() if self._address.tls else None,
        )
        connection.open()
        if connection.receive_maximum < self._in_flight:  # paho takes the number only before it connects
            self._in_flight = connection.receive_maximum
            connection.close()
            return self._open(version)
        return connection

    def _receive(self, topic: str, data: bytes) -> None:
        self.received_bytes += len(data) + len(topic)
        try:
            piece = self._topics.parse_model(topic)
            if piece is not None:
                self._on_piece(*piece, data)
                return
            message = self._seal.open(data, topic)
        except RemoteProtocolError as error:
            log.warning("device %s: message on %s refused (%s): %s", self._device, topic, error.refusal, error)
            return
        except OSError as error:  # the guard could not be written; the aggregator will repeat itself
            log.error("device %s: message on %s dropped: %s", self._device, topic, error)  # noqa: TRY400 (expected)
            return
        if message is not None:
            self._on_message(message)
