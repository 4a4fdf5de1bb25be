"""A broker in pure Python for machines without Mosquitto: amqtt, MQTT 3.1.1, all in memory.

Run as `python -m aggregator.embedded_broker --host 127.0.0.1 --port 1883`; the aggregator does so as a child process.
Everything is forgotten when it stops. Aggregator and devices repeat what matters on every connect (SPEC.md, BF-020),
so a restart costs time and loses nothing.

amqtt 0.12 has faults that a fleet would meet; `FleetBroker` corrects these four and nothing else:

1. A client that connects is sent the retained messages of everybody's subscriptions; and if another client subscribes
   in the meantime, "dictionary changed size during iteration" leaves it hanging.
2. Keep-alive is not enforced: a device that lost its power stays online for ever, its will is never published.
3. When a client takes over its own kept session, the end of the old connection marks the new one disconnected.
4. Kept sessions of clients without a password are thrown away after a second.

What stays: a message in flight to a client that disconnects at that moment is lost in spite of QoS 1, and so is one
that is not acknowledged within 5 s. The protocol counts on no broker for delivery (BF-024, BF-025).
"""

import argparse
import asyncio
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin

SESSION_EXPIRY_S: Final = 24 * 3600
KEEP_ALIVE_GRACE_S: Final = 15
"""Added to a client's keep-alive before it is taken for dead: half of the 30 s that our clients ask for."""

LAST_WORDS_S: Final = 0.2
"""amqtt acknowledges a message before it passes it on; the aggregator's goodbye comes just before SIGTERM."""


class Welcome(BaseAuthPlugin):  # type: ignore[misc]
    """Lets everyone in and keeps their sessions (fault 4); messages are signed, so names need no password."""

    async def authenticate(self, *, session: Any) -> bool:
        """Always true."""
        session.is_anonymous = False
        return True

    @dataclass
    class Config:
        """The configuration that amqtt asks every plugin for."""


class FleetBroker(Broker):  # type: ignore[misc]
    """amqtt's broker without the faults named above; the methods overridden are amqtt's own."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._subscriptions = _Steady()

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _initialize_client_session(self, *arguments: Any) -> Any:
        handler, session = await super()._initialize_client_session(*arguments)
        handler.handle_read_timeout = lambda: asyncio.ensure_future(handler.handle_connection_closed())
        return handler, session

    async def _client_message_loop(self, client_session: Any, handler: Any) -> None:
        if not client_session.transitions.is_connected():
            client_session.transitions.connect()  # the old connection ended after the new one was accepted (fault 3)
        await super()._client_message_loop(client_session, handler)

    async def _handle_disconnect(self, client_session: Any, handler: Any, disconnect_waiter: Any) -> None:
        if self._get_handler(client_session) is handler:
            await super()._handle_disconnect(client_session, handler, disconnect_waiter)
        else:
            await self._stop_handler(handler)


class _Steady(dict[str, Any]):
    """A dictionary whose keys can be walked while it changes (fault 1)."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))


def configuration(host: str, port: int) -> dict[str, Any]:
    """The configuration for amqtt: one listener, everyone welcome, no chatter."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {
        "listeners": {"default": {"type": "tcp", "bind": bind}},
        "timeout_disconnect_delay": KEEP_ALIVE_GRACE_S,
        "session_expiry_interval": SESSION_EXPIRY_S,
        "plugins": {"aggregator.embedded_broker.Welcome": {}},
    }


async def serve(host: str, port: int) -> None:
    """Run the broker until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await FleetBroker(configuration(host, port)).start()
    await stopping.wait()
    await asyncio.sleep(LAST_WORDS_S)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m aggregator.embedded_broker", description="A small MQTT broker.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=1883, help="port to listen on (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("transitions").setLevel(logging.CRITICAL)  # it reports every refused move as an error
    asyncio.run(serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
