"""A virtual device's connection: paho without its thread, so that one loop serves hundreds of them."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from virtual.agent import Outgoing

KEEP_ALIVE_S: Final = 30
CONNECT_WITHIN_S: Final = 5.0
IN_FLIGHT: Final = 20


class VirtualLink:
    """One connection after another for one device; MQTT 3.1.1 with a kept session, as for a small board.

    Args:
        host: of the broker.
        port: of the broker.
        name: the device.
        subscriptions: said on every connect.
        arrived: called with topic and payload, from `read`.
        up: called when the broker has taken the subscriptions, from `read`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        subscriptions: tuple[str, ...],
        arrived: Callable[[str, bytes], None],
        up: Callable[[], None],
    ) -> None:
        self._host, self._port, self._name = host, port, name
        self._subscriptions, self._arrived, self._up = subscriptions, arrived, up
        self._client: mqtt.Client | None = None

    @property
    def socket(self) -> socket.socket | None:
        """To be waited for; None while there is no connection."""
        found = self._client.socket() if self._client is not None else None
        return found if isinstance(found, socket.socket) else None

    @property
    def open(self) -> bool:
        """Whether a connection was begun and not cut; it may have broken since."""
        return self._client is not None

    @property
    def wants_write(self) -> bool:
        """Whether the socket was full when something was sent."""
        return self._client is not None and self._client.want_write()

    def connect(self, will: Outgoing) -> bool:
        """Begin a connection; whether the broker could be reached."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, self._name, clean_session=False)
        client.connect_timeout = CONNECT_WITHIN_S
        client.will_set(will.topic, will.data, 1, retain=True)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.on_connect, client.on_message, client.on_subscribe = (
            self._on_connect,
            self._on_message,
            self._on_subscribe,
        )
        try:
            client.connect(self._host, self._port, KEEP_ALIVE_S)
        except OSError:
            return False
        self._client = client
        return True

    def publish(self, message: Outgoing) -> None:
        """Hand a message over."""
        if self._client is not None:
            self._client.publish(message.topic, message.data, 1, message.retain)

    def listen(self, topic: str) -> None:
        """Subscribe to one more topic, here and on later connections."""
        if topic not in self._subscriptions:
            self._subscriptions = (*self._subscriptions, topic)
            if self._client is not None:
                self._client.subscribe(topic, 0)

    def read(self) -> bool:
        """Take what has arrived; False when the connection is lost."""
        return self._client is not None and self._client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def write(self) -> bool:
        """Send what had to wait; False when the connection is lost."""
        return self._client is not None and self._client.loop_write() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def keep(self) -> bool:
        """Ping when it is time; False when the connection is lost."""
        return self._client is not None and self._client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS

    def cut(self) -> None:
        """Vanish without a word: the broker publishes the will."""
        stream, self._client = self.socket, None
        if stream is not None:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()

    def _on_connect(self, client: mqtt.Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            client.subscribe([(name, 0 if "/model/" in name else 1) for name in self._subscriptions])

    def _on_subscribe(self, *_: Any) -> None:
        self._up()

    def _on_message(self, _c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        self._arrived(message.topic, bytes(message.payload))
