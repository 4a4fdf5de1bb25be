"""A plain MQTT client for tests: real sockets, messages collected in order, every wait bounded."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from aggregator.broker import BrokerUrl

WAIT_S = 20.0


def eventually(condition: Callable[[], Any], what: str, within_s: float = WAIT_S) -> Any:
    """Wait until `condition` gives something true, and return it."""
    give_up_at = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < give_up_at, f"waited {within_s:g} s in vain for {what}"
        time.sleep(0.01)
    return value


class MqttClient:
    """Connected as long as the block runs; MQTT 3.1.1, which every broker speaks."""

    def __init__(
        self,
        url: BrokerUrl,
        name: str,
        *,
        clean: bool = True,
        will: tuple[str, bytes] | None = None,
        keep_alive: int = 30,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.received: list[mqtt.MQTTMessage] = []
        self.session_present = False
        self._up, self._subscribed = threading.Event(), threading.Event()
        self._url, self._keep_alive = url, keep_alive
        protocol: MQTTProtocolVersion = mqtt.MQTTv311
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=protocol)
        self.client.on_connect = self._on_connect
        self.client.on_message = lambda _c, _u, message: self.received.append(message)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.reconnect_delay_set(1, 1)
        if context is not None:
            self.client.tls_set_context(context)
        if will:
            self.client.will_set(will[0], will[1], 1, retain=True)

    def _on_connect(self, _c: Any, _u: Any, flags: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            self.session_present = flags.session_present
            self._up.set()

    def __enter__(self) -> Self:
        self.client.connect(self._url.host, self._url.port, self._keep_alive)
        self.client.loop_start()
        assert self._up.wait(WAIT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, *names: str) -> None:
        self._subscribed.clear()
        self.client.subscribe([(name, 1) for name in names])
        assert self._subscribed.wait(WAIT_S), f"no answer to SUBSCRIBE {names}"

    def publish(self, topic: str, data: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Publish and wait until the broker has it."""
        info = self.client.publish(topic, data, qos, retain)
        info.wait_for_publish(WAIT_S)
        assert info.is_published()

    def on(self, topic: str) -> list[bytes]:
        """What has arrived on a topic."""
        return [bytes(message.payload) for message in self.received if message.topic == topic]

    def crash(self) -> None:
        """Vanish without a DISCONNECT packet."""
        stream = self.client.socket()
        assert isinstance(stream, socket.socket)
        self.client.on_disconnect = lambda client, *_: client.disconnect()  # no reconnect
        stream.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()
