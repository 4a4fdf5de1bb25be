"""The aggregator's connection, over both brokers and against brokers that misbehave."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import msgpack
import pytest
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto

from aggregator import broker, ports
from aggregator.broker import BrokerUrl, open_broker
from aggregator.link import UNREAD, Connection, Link, PacketTooLarge, Received, Sent
from aggregator.store import Outgoing
from protocol.envelope import Envelope, open_envelope
from protocol.messages import NUMBERS, Message, Need, RoundState, ServerState
from protocol.schema import to_map
from protocol.signing import SigningKey
from protocol.topics import Topics

HOST = "127.0.0.1"
KEY = SigningKey(bytes(range(32)))
TOPICS = Topics("test")
RX = TOPICS.receipt("pi", "t")


def make(url: BrokerUrl, inbox: Queue[Any], boot: int = 7) -> Link:
    return Link(url=url, topics=TOPICS, shard="0", key=KEY, boot=boot, inbox=inbox, clock=time.time)


def row(number: int, topic: str, message: Message, **fields: Any) -> Outgoing:
    standard: dict[str, Any] = {"retain": False, "expires_at": None}
    body = msgpack.packb(to_map(message))
    return Outgoing(id=number, topic=topic, message_type=NUMBERS[type(message)], body=body, **standard | fields)


def opened(topic: str, data: bytes) -> Envelope:
    return open_envelope(data, topic=topic, key_of=lambda sender: KEY.public if sender == "aggregator" else None)


def next_of(inbox: Queue[Any], kind: type[Any], within_s: float = 20.0) -> Any:
    """The next event of a kind; others before it are dropped."""
    give_up_at = time.monotonic() + within_s
    while True:
        try:
            event = inbox.get(timeout=max(0.0, give_up_at - time.monotonic()))
        except Empty:
            raise AssertionError(f"no {kind.__name__} within {within_s:g} s") from None
        if isinstance(event, kind):
            return event


class LinkContract:
    """What the coordinator relies on, over any broker."""

    kind = ""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[BrokerUrl]:
        port = ports.free_port(HOST)
        with open_broker(self.kind, host=HOST, port=port, folder=tmp_path, report=print) as url:
            yield url

    @pytest.fixture
    def inbox(self) -> Queue[Any]:
        return Queue()

    @pytest.fixture
    def link(self, url: BrokerUrl, inbox: Queue[Any]) -> Iterator[Link]:
        link = make(url, inbox)
        link.start()
        assert link.wait(20)
        yield link
        link.stop()

    def test_it_says_online_when_it_comes_and_offline_when_it_goes(self, url: BrokerUrl, inbox: Queue[Any]) -> None:
        with MqttClient(url, "pi") as pi:
            pi.subscribe(TOPICS.server_state)
            link = make(url, inbox)
            link.start()
            eventually(lambda: len(pi.on(TOPICS.server_state)) == 1, "online")
            link.stop()
            eventually(lambda: len(pi.on(TOPICS.server_state)) == 2, "offline")
            said = [opened(TOPICS.server_state, data) for data in pi.on(TOPICS.server_state)]
        assert [envelope.message for envelope in said] == [ServerState(True, "test"), ServerState(False, "test")]
        assert said[0].stamp < said[1].stamp
        assert said[0].stamp.boot == 7

    def test_its_will_speaks_for_it_when_it_is_cut_off(self, url: BrokerUrl, link: Link) -> None:
        with MqttClient(url, "pi") as pi:
            pi.subscribe(TOPICS.server_state)
            eventually(lambda: pi.on(TOPICS.server_state), "the retained state")
            stream = link._client.socket()  # type: ignore[union-attr]
            assert isinstance(stream, socket.socket)
            stream.shutdown(socket.SHUT_RDWR)
            eventually(lambda: len(pi.on(TOPICS.server_state)) >= 3, "will and return")
            said = [opened(TOPICS.server_state, data).message for data in pi.on(TOPICS.server_state)]
        assert said[-2:] == [ServerState(False, "test"), ServerState(True, "test")]

    @pytest.mark.usefixtures("link")
    def test_what_devices_say_comes_in_and_nothing_else(self, url: BrokerUrl, inbox: Queue[Any]) -> None:
        with MqttClient(url, "pi") as pi:
            pi.publish(TOPICS.device("pi", "offer"), b"not for the aggregator")
            pi.publish(TOPICS.manifest("1", "pi", "t"), b"another shard")
            pi.publish(TOPICS.device("pi", "tele"), b"telemetry", qos=0)
            pi.publish(TOPICS.chunk("0", "pi", "t", 3), b"x" * 65536)
            events = [next_of(inbox, Received) for _ in range(2)]
        assert [(event.topic, len(event.data)) for event in events] == [
            (TOPICS.device("pi", "tele"), 9),
            (TOPICS.chunk("0", "pi", "t", 3), 65536),
        ]

    def test_a_row_is_sealed_sent_and_settled_once_the_broker_has_it(
        self, url: BrokerUrl, link: Link, inbox: Queue[Any]
    ) -> None:
        with MqttClient(url, "pi") as pi:
            pi.subscribe(RX)
            rows = [row(number, RX, Need("t", bytes([number]))) for number in (1, 2, 3)]
            for outgoing in rows:
                link.publish(outgoing)
                assert link.in_flight(outgoing)
            settled = set()
            while len(settled) < 3:
                settled.add(link.settle(next_of(inbox, Sent)))
                settled.discard(None)
            assert settled == {1, 2, 3}
            assert not any(link.in_flight(outgoing) for outgoing in rows)
            eventually(lambda: len(pi.on(RX)) == 3, "three messages")
            said = [opened(RX, data) for data in pi.on(RX)]
        assert [envelope.message for envelope in said] == [Need("t", bytes([number])) for number in (1, 2, 3)]
        assert said[0].stamp < said[1].stamp < said[2].stamp

    def test_a_retained_row_is_there_for_who_comes_later(self, url: BrokerUrl, link: Link, inbox: Queue[Any]) -> None:
        link.publish(row(1, TOPICS.round_state(), RoundState(3, "collecting", 2), retain=True))
        while link.settle(next_of(inbox, Sent)) != 1:
            pass
        with MqttClient(url, "pi") as pi:
            pi.subscribe(TOPICS.round_state())
            data = eventually(lambda: pi.on(TOPICS.round_state()), "the retained round")[0]
        assert opened(TOPICS.round_state(), data).message == RoundState(3, "collecting", 2)

    def test_it_comes_back_and_listens_again_after_the_broker_was_killed(
        self, url: BrokerUrl, link: Link, inbox: Queue[Any]
    ) -> None:
        assert next_of(inbox, Connection).up
        os.kill(int(ports.holder(url.port).partition("process ")[2].rstrip(")")), signal.SIGKILL)
        assert not next_of(inbox, Connection).up
        assert next_of(inbox, Connection).up
        with MqttClient(url, "pi") as pi:
            pi.subscribe(RX)
            pi.publish(TOPICS.device("pi", "birth"), b"again")
            assert next_of(inbox, Received).data == b"again"
            link.publish(row(1, RX, Need("t", b"")))
            eventually(lambda: pi.on(RX), "a message after the restart")

    def test_what_is_not_handled_makes_the_broker_wait_and_is_not_lost(
        self, url: BrokerUrl, link: Link, inbox: Queue[Any]
    ) -> None:
        count = UNREAD + 40
        with MqttClient(url, "pi") as pi:
            for number in range(count):
                pi.client.publish(TOPICS.chunk("0", "pi", "t", number), b"x", 1)
            eventually(lambda: inbox.qsize() >= UNREAD, "a full inbox")
            time.sleep(0.3)
            assert inbox.qsize() <= UNREAD + 5  # some room for what is no message
            for number in range(count):
                event = next_of(inbox, Received)
                assert event.topic == TOPICS.chunk("0", "pi", "t", number)
                link.handled()

    def test_it_stops_while_messages_wait_unread(self, url: BrokerUrl, inbox: Queue[Any]) -> None:
        link = make(url, inbox)
        link.start()
        assert link.wait(20)
        with MqttClient(url, "pi") as pi:
            for number in range(UNREAD + 10):
                pi.client.publish(TOPICS.chunk("0", "pi", "t", number), b"x", 1)
            eventually(lambda: inbox.qsize() >= UNREAD, "a full inbox")
            started_at = time.monotonic()
            link.stop()
            assert time.monotonic() - started_at < 10


@needs_mosquitto
class TestOverMosquitto(LinkContract):
    kind = "mosquitto"

    @pytest.mark.usefixtures("link")
    def test_it_speaks_mqtt_5(self, inbox: Queue[Any]) -> None:
        assert "MQTT 5" in next_of(inbox, Connection).detail

    def test_a_packet_above_the_limit_of_the_broker_is_never_sent(self, link: Link) -> None:
        link._packet_bytes = 100
        with pytest.raises(PacketTooLarge, match=r"packet of \d+ bytes .*at most 100"):
            link.publish(row(1, RX, Need("t", bytes(50))))
        assert not link.in_flight(row(1, RX, Need("t", b"")))

    def test_it_learns_the_limit_from_the_broker(self, link: Link) -> None:
        assert link._packet_bytes == broker.PACKET_BYTES

    def test_an_old_row_expires_at_the_broker(self, url: BrokerUrl, link: Link, inbox: Queue[Any]) -> None:
        with MqttClient(url, "pi", clean=False) as pi:
            pi.subscribe(RX)
        link.publish(row(1, RX, Need("t", b"short"), expires_at=time.time() - 5))
        link.publish(row(2, RX, Need("t", b"long"), expires_at=time.time() + 1e12))
        while link.settle(next_of(inbox, Sent)) != 2:
            pass
        time.sleep(2.5)
        with MqttClient(url, "pi", clean=False) as pi:
            eventually(lambda: pi.on(RX), "the message that did not expire")
            time.sleep(0.2)
            assert [opened(RX, data).message for data in pi.on(RX)] == [Need("t", b"long")]


class TestOverTheEmbeddedBroker(LinkContract):
    kind = "embedded"

    @pytest.mark.usefixtures("link")
    def test_it_falls_back_to_mqtt_311(self, inbox: Queue[Any]) -> None:
        assert "MQTT 3.1.1" in next_of(inbox, Connection).detail


def test_an_absent_broker_is_named_once_and_waited_for(tmp_path: Path) -> None:
    port = ports.free_port(HOST)
    inbox: Queue[Any] = Queue()
    link = make(BrokerUrl(HOST, port), inbox)
    link.start()
    assert next_of(inbox, Connection) == Connection(False, f"broker {HOST}:{port}: Connection refused")
    assert not link.connected
    link.publish(row(1, RX, Need("t", b"")))  # stays in the outbox
    assert not link.in_flight(row(1, RX, Need("t", b"")))
    with open_broker("embedded", host=HOST, port=port, folder=tmp_path, report=print):
        assert next_of(inbox, Connection).up
        link.stop()
    assert not any(isinstance(event, Connection) for event in inbox.queue)


def test_a_broker_that_refuses_the_name_or_password_is_reported() -> None:
    connack = b"\x20\x03\x00\x87\x00"  # MQTT 5: not authorized
    inbox: Queue[Any] = Queue()
    stopped = threading.Event()
    with socket.create_server((HOST, 0)) as server:

        def refuse() -> None:
            while not stopped.is_set():
                stream, _ = server.accept()
                with stream:
                    stream.recv(4096)
                    stream.sendall(connack)

        thread = threading.Thread(target=refuse)
        thread.start()
        url = BrokerUrl(HOST, server.getsockname()[1], username="fleet", password="wrong")
        link = make(url, inbox)
        link.start()
        event = next_of(inbox, Connection)
        stopped.set()
        link.stop()
        socket.create_connection(server.getsockname()).close()
        thread.join()
    assert not event.up
    assert "refused the connection: Not authorized" in event.detail
    assert "wrong" not in event.detail
