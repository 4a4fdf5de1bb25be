"""The link, against real brokers: Mosquitto (MQTT 5) and the embedded one (3.1.1 only)."""

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
from edge_support import DEVICE, HOST, TOPICS, Hasty, broker
from mqtt_client import MqttClient, eventually
from programs import needs, needs_mosquitto

from aggregator import ports
from aggregator.broker import BrokerUrl, open_broker
from edge.link import Link
from edge.mqtt import (
    V5,
    V311,
    Address,
    AggregatorAbsent,
    Connection,
    PacketTooLarge,
    Unreachable,
    VersionRefused,
)
from edge.sealing import Seal
from edge.state import Journal
from protocol.envelope import AGGREGATOR, Stamp, open_envelope, seal
from protocol.messages import Birth, Message, Need, ServerState, State, Status, Telemetry
from protocol.signing import SigningKey

DEVICE_KEY, SERVER_KEY = SigningKey.generate(), SigningKey.generate()
STATE = TOPICS.device(DEVICE, "state")


def birth(session: int) -> Birth:
    return Birth(session, "0", "test", 1, 0, False, (), (), (), 0, 0.0, 0, b"", (), 1024)


@dataclass
class Line:
    """A link and what it hears."""

    journal: Journal
    url: BrokerUrl
    ups: SimpleQueue[float] = field(default_factory=SimpleQueue)
    heard: SimpleQueue[Message] = field(default_factory=SimpleQueue)

    def open(self) -> Link:
        return Link(
            Address.parse(str(self.url)),
            DEVICE,
            TOPICS,
            Seal(DEVICE, DEVICE_KEY, SERVER_KEY.public, self.journal),
            next_session=self.journal.next_session,
            birth=birth,
            status=lambda: Status.ONLINE,
            on_up=lambda: self.ups.put(time.monotonic()),
            on_message=self.heard.put,
            rng=Hasty(),
        )


def message_in(data: bytes, topic: str) -> Message:
    return open_envelope(data, topic=topic, key_of=lambda _: DEVICE_KEY.public).message


def states(peer: MqttClient) -> list[tuple[Status, int]]:
    found = [message_in(data, STATE) for data in peer.on(STATE)]
    return [(state.status, state.session) for state in found if isinstance(state, State)]


def sealed(message: Message, topic: str, sequence: int, *, boot: int = 1, key: SigningKey = SERVER_KEY) -> bytes:
    return seal(message, topic=topic, sender=AGGREGATOR, stamp=Stamp(boot, sequence), time_ms=0, key=key)


class LinkContract:
    """What the agent relies on with every broker."""

    kind = ""
    version = ""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[BrokerUrl]:
        with broker(self.kind, tmp_path / "broker") as url:
            yield url

    @pytest.fixture
    def line(self, url: BrokerUrl, tmp_path: Path) -> Line:
        return Line(Journal.open(tmp_path / "journal")[0], url)

    def test_it_finds_the_version_and_introduces_itself(self, line: Line) -> None:
        with MqttClient(line.url, "peer") as peer:
            peer.subscribe(f"{TOPICS.root}/d/#")
            with line.open() as link:
                line.ups.get(timeout=20)
                assert link.version == self.version
                eventually(lambda: len(peer.received) >= 2, "birth and state")
                births = peer.on(TOPICS.device(DEVICE, "birth"))
                assert message_in(births[0], TOPICS.device(DEVICE, "birth")) == birth(line.journal.record.session)
                assert states(peer) == [(Status.ONLINE, line.journal.record.session)]
            session = line.journal.record.session
            eventually(lambda: states(peer)[-1] == (Status.OFFLINE, session), "the goodbye")

    def test_state_and_birth_are_retained(self, line: Line) -> None:
        with line.open():
            line.ups.get(timeout=20)
        with MqttClient(line.url, "late") as late:
            late.subscribe(f"{TOPICS.root}/d/#")
            eventually(lambda: len(late.received) == 2, "what was retained")
            assert states(late) == [(Status.OFFLINE, line.journal.record.session)]

    def test_a_second_connect_has_a_higher_session(self, line: Line) -> None:
        sessions = []
        for _ in range(2):
            with line.open():
                line.ups.get(timeout=20)
                sessions.append(line.journal.record.session)
        assert sessions[1] > sessions[0]

    def test_verified_messages_arrive_and_others_are_dropped(
        self, line: Line, caplog: pytest.LogCaptureFixture
    ) -> None:
        topic, other = TOPICS.receipt(DEVICE, "t"), TOPICS.receipt(DEVICE, "u")
        need = Need("t", b"\1")
        with MqttClient(line.url, AGGREGATOR) as peer, line.open():
            line.ups.get(timeout=20)
            first = sealed(need, topic, 5)
            bad = [
                b"",
                b"noise" * 30,
                first[:-1],
                sealed(need, other, 6),  # moved to another topic
                sealed(need, topic, 7, key=DEVICE_KEY),  # forged
                seal(need, topic=topic, sender="pi-2", stamp=Stamp(1, 8), time_ms=0, key=SERVER_KEY),
            ]
            for data in [*bad, first, first, sealed(need, topic, 4), sealed(Need("t", b"\3"), topic, 9)]:
                peer.publish(topic, data)
            assert line.heard.get(timeout=20) == need
            assert line.heard.get(timeout=20) == Need("t", b"\3")
            assert line.heard.empty()
        refused = [record for record in caplog.records if "refused" in record.getMessage()]
        assert len(refused) == len(bad) + 2  # the replays as well, once each

    def test_the_replay_guard_survives_a_restart(self, line: Line, tmp_path: Path) -> None:
        topic = TOPICS.receipt(DEVICE, "t")
        data = sealed(Need("t", b"\1"), topic, 5)
        with MqttClient(line.url, AGGREGATOR) as peer:
            with line.open():
                line.ups.get(timeout=20)
                peer.publish(topic, data)
                line.heard.get(timeout=20)
            line.journal, _ = Journal.open(tmp_path / "journal")
            with line.open():
                line.ups.get(timeout=20)
                peer.publish(topic, data)
                peer.publish(topic, sealed(Need("t", b"\2"), topic, 6))
                assert line.heard.get(timeout=20) == Need("t", b"\2")

    def test_messages_wait_at_the_broker_while_the_device_is_away(self, line: Line) -> None:
        topic = TOPICS.receipt(DEVICE, "t")
        with line.open():
            line.ups.get(timeout=20)
        with MqttClient(line.url, AGGREGATOR) as peer:
            peer.publish(topic, sealed(Need("t", b"\1"), topic, 1))
        with line.open():
            assert line.heard.get(timeout=20) == Need("t", b"\1")

    def test_a_stale_will_of_the_aggregator_is_ignored(self, line: Line) -> None:
        topic = TOPICS.server_state
        with MqttClient(line.url, AGGREGATOR) as peer, line.open():
            line.ups.get(timeout=20)
            peer.publish(topic, sealed(ServerState(True, "test"), topic, 1, boot=2))
            peer.publish(topic, sealed(ServerState(False, "test"), topic, 0, boot=1))
            peer.publish(topic, sealed(ServerState(False, "test"), topic, 0, boot=2))
            assert line.heard.get(timeout=20) == ServerState(True, "test")
            assert line.heard.get(timeout=20) == ServerState(False, "test")
            assert line.heard.empty()

    def test_chunks_and_messages_are_acknowledged(self, line: Line) -> None:
        topic = TOPICS.chunk("s0", DEVICE, "t", 0)
        chunk = bytes(range(256)) * 200
        with MqttClient(line.url, AGGREGATOR) as peer, line.open() as link:
            peer.subscribe(f"{TOPICS.root}/#")
            line.ups.get(timeout=20)
            for _ in range(40):
                link.confirm(link.send(topic, chunk))
            link.report(Telemetry("idle", "", 0.0, 0, 0, 0, 0.0))
            eventually(lambda: len(peer.on(topic)) == 40, "40 chunks")
            assert peer.on(topic)[-1] == chunk
            assert link.sent_bytes >= 40 * len(chunk)

    def test_it_comes_back_after_the_broker_was_away(self, tmp_path: Path) -> None:
        port = ports.free_port(HOST)
        line = Line(Journal.open(tmp_path / "journal")[0], BrokerUrl.parse(f"mqtt://{HOST}:{port}"))
        with line.open() as link:
            with pytest.raises(Empty):
                line.ups.get(timeout=0.3)
            with pytest.raises(Unreachable, match="not connected"):
                link.send("x", b"")
            for _ in range(2):
                with open_broker(self.kind, host=HOST, port=port, folder=tmp_path / "again", report=lambda _: None):
                    line.ups.get(timeout=20)
                eventually(lambda: not link.connected, "the loss to be noticed")


@needs_mosquitto
class TestWithMosquitto(LinkContract):
    kind, version = "mosquitto", "5"

    def test_nobody_listening_is_noticed(self, line: Line) -> None:
        with line.open() as link:
            line.ups.get(timeout=20)
            with pytest.raises(AggregatorAbsent, match="nobody listens"):
                link.publish(TOPICS.receipt("nobody", "t"), Need("t", b""))

    def test_the_will_of_a_killed_connection_names_its_session(self, line: Line) -> None:
        with MqttClient(line.url, "peer") as peer:
            peer.subscribe(STATE)
            with line.open() as link:
                line.ups.get(timeout=20)
                session = line.journal.record.session
                assert link._connection is not None
                stream = link._connection._client.socket()
                assert isinstance(stream, socket.socket)
                stream.shutdown(socket.SHUT_RDWR)
                line.ups.get(timeout=20)
                eventually(lambda: (Status.OFFLINE, session) in states(peer), "the will")
                eventually(lambda: states(peer)[-1] == (Status.ONLINE, session + 1), "the new session")


@needs_mosquitto
class TestWithAStrictBroker:
    """Mosquitto with small packets and few messages in flight."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> Iterator[BrokerUrl]:
        port = ports.free_port(HOST)
        settings = tmp_path / "mosquitto.conf"
        settings.write_text(
            f"listener {port} {HOST}\nallow_anonymous true\nlog_type none\n"
            "max_packet_size 20000\nmax_inflight_messages 3\n"
        )
        program = subprocess.Popen([needs("mosquitto"), "-c", settings], stderr=subprocess.DEVNULL)
        eventually(lambda: not ports.is_free(HOST, port), "mosquitto")
        yield BrokerUrl.parse(f"mqtt://{HOST}:{port}")
        program.terminate()
        program.wait()

    def test_chunks_shrink_to_what_it_accepts(self, url: BrokerUrl, tmp_path: Path) -> None:
        line = Line(Journal.open(tmp_path / "journal")[0], url)
        topic = TOPICS.chunk("s0", DEVICE, "t", 0)
        with MqttClient(url, AGGREGATOR) as peer, line.open() as link:
            peer.subscribe(f"{TOPICS.root}/up/s0/#")
            line.ups.get(timeout=20)
            size = link.chunk_bytes(topic)
            assert 19_000 < size < 20_000
            tickets = [link.send(topic, bytes(size)) for _ in range(20)]
            for ticket in tickets:
                link.confirm(ticket)
            eventually(lambda: len(peer.on(topic)) == 20, "20 chunks")

    def test_more_than_it_accepts_is_refused_here_and_the_link_stays(self, url: BrokerUrl, tmp_path: Path) -> None:
        line = Line(Journal.open(tmp_path / "journal")[0], url)
        with line.open() as link:
            line.ups.get(timeout=20)
            with pytest.raises(PacketTooLarge, match="accepts 20000"):
                link.send("x", bytes(20_001))
            time.sleep(0.3)
            assert link.connected
            assert line.ups.empty()


@pytest.fixture
def grudging() -> Iterator[Address]:
    """Three packets of a broker: it lets everybody in and refuses every subscription (not authorized, 0x87)."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.recv(4096)
                stream.sendall(b"\x20\x03\x00\x00\x00")
                packet_id = stream.recv(4096)[2:4]
                stream.sendall(b"\x90\x04" + packet_id + b"\x00\x87")
                stream.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(HOST, listener.getsockname()[1], tls=False)
        thread.join()


def test_a_subscription_that_the_broker_refuses_is_an_error(grudging: Address) -> None:
    connection = Connection(grudging, DEVICE, V5)
    connection.open()
    with pytest.raises(Unreachable, match="refuses subscriptions to srv/state"):
        connection.subscribe(["srv/state"])
    connection.close()


class TestWithTheEmbeddedBroker(LinkContract):
    kind, version = "embedded", "3.1.1"

    def test_mqtt_5_is_refused_there(self, url: BrokerUrl) -> None:
        connection = Connection(Address.parse(str(url)), "x", V5)
        with pytest.raises(VersionRefused, match="does not speak MQTT 5"):
            connection.open()

    def test_an_unacknowledged_publish_is_an_error(self, url: BrokerUrl) -> None:
        connection = Connection(Address.parse(str(url)), "x", V311)
        connection.open()
        ticket = connection.send("t", b"")
        connection.confirm(ticket, 5)
        connection.close()
        with pytest.raises(Unreachable):
            connection.send("t", b"")


def test_a_broker_that_is_away_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = ports.free_port(HOST)
    line = Line(Journal.open(tmp_path / "journal")[0], BrokerUrl.parse(f"mqtt://{HOST}:{port}"))
    with caplog.at_level(logging.WARNING), line.open():
        time.sleep(0.5)
    assert len([record for record in caplog.records if "Connection refused" in record.getMessage()]) == 1


@pytest.mark.parametrize("url", ["", "http://x", "mqtt://", "x:1883"])
def test_a_broker_url_is_checked(url: str) -> None:
    with pytest.raises(ValueError, match="expected mqtt://"):
        Address.parse(url)


def test_broker_urls_have_their_standard_ports() -> None:
    assert Address.parse("mqtt://b") == Address("b", 1883, tls=False)
    assert Address.parse("mqtts://b") == Address("b", 8883, tls=True)
