"""One contract for every broker the aggregator starts, against the real programs."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto

from aggregator import broker, ports
from aggregator.broker import BrokerError, BrokerUrl, choose, mosquitto_configuration, open_broker
from aggregator.child import Child, ChildError
from aggregator.mqtt_probe import NoBroker, protocol_level

HOST = "127.0.0.1"
CHUNK = os.urandom(64 * 1024)


class BrokerContract:
    """What aggregator and devices rely on."""

    kind = ""
    level = 0

    @pytest.fixture
    def reports(self) -> list[str]:
        return []

    @pytest.fixture
    def url(self, tmp_path: Path, reports: list[str]) -> Iterator[BrokerUrl]:
        port = ports.free_port(HOST)
        with open_broker(self.kind, host=HOST, port=port, folder=tmp_path / "broker", report=reports.append) as url:
            yield url

    def test_it_speaks_the_version_it_should(self, url: BrokerUrl) -> None:
        assert protocol_level(url.host, url.port) == self.level

    def test_a_message_reaches_who_subscribed(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a, MqttClient(url, "b") as b:
            a.subscribe("d/+/state", "up/0/#")
            b.publish("up/0/b/t/m", b"manifest")
            b.publish("elsewhere", b"no")
            eventually(lambda: a.on("up/0/b/t/m") == [b"manifest"], "the message")
            assert not a.on("elsewhere")

    def test_chunks_of_64_kb_arrive_whole_and_in_order(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a, MqttClient(url, "b") as b:
            a.subscribe("up/0/#")
            for number in range(20):
                b.publish(f"up/0/b/t/c/{number}", CHUNK)
            eventually(lambda: len(a.received) == 20, "20 chunks")
            assert [message.topic for message in a.received] == [f"up/0/b/t/c/{number}" for number in range(20)]
            assert all(message.payload == CHUNK for message in a.received)

    def test_a_retained_message_waits_for_who_comes_later(self, url: BrokerUrl) -> None:
        with MqttClient(url, "b") as b:
            b.publish("d/b/birth", b"old", retain=True)
            b.publish("d/b/birth", b"new", retain=True)
        with MqttClient(url, "a") as a:
            a.subscribe("d/+/birth")
            eventually(lambda: a.on("d/b/birth") == [b"new"], "the newest retained message")

    def test_a_client_gets_no_retained_message_it_did_not_ask_for(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a, MqttClient(url, "b") as b:
            a.subscribe("d/+/birth")
            b.publish("d/b/birth", b"mine", retain=True)
            with MqttClient(url, "c") as c:
                c.subscribe("srv/state")
                b.publish("srv/state", b"last")
                eventually(lambda: c.on("srv/state"), "a later message")
                assert not c.on("d/b/birth")

    def test_the_will_of_a_crashed_client_is_published_and_retained(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a:
            a.subscribe("d/b/state")
            with MqttClient(url, "b", will=("d/b/state", b"offline")) as b:
                b.crash()
            eventually(lambda: a.on("d/b/state") == [b"offline"], "the will")
        with MqttClient(url, "late") as late:
            late.subscribe("d/b/state")
            eventually(lambda: late.on("d/b/state") == [b"offline"], "the retained will")

    def test_no_will_is_published_after_a_goodbye(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a:
            a.subscribe("d/b/state", "end")
            with MqttClient(url, "b", will=("d/b/state", b"offline")):
                pass
            a.publish("end", b"")
            eventually(lambda: a.on("end"), "a later message")
            assert not a.on("d/b/state")

    def test_the_will_of_a_silent_client_is_published_when_its_keep_alive_is_over(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a, socket.create_connection((url.host, url.port)) as silent:
            a.subscribe("d/b/state")
            will = b"\0\x09d/b/state" + b"\0\4gone"
            body = b"\0\4MQTT\4\x06\0\1" + b"\0\1b" + will  # clean session, will, keep-alive of one second
            silent.sendall(bytes([0x10, len(body)]) + body)
            eventually(lambda: a.on("d/b/state") == [b"gone"], "the will of a silent client", within_s=40)

    def test_a_kept_session_gets_what_was_said_while_it_was_away(self, url: BrokerUrl) -> None:
        with MqttClient(url, "b", clean=False) as b:
            b.subscribe("d/b/offer")
            b.crash()
        with MqttClient(url, "a") as a:
            # amqtt looks through its sessions every second, and used to throw this one away.
            threading.Event().wait(1.5)
            a.publish("d/b/offer", b"task")
        with MqttClient(url, "b", clean=False) as b:
            assert b.session_present
            eventually(lambda: b.on("d/b/offer") == [b"task"], "the message kept for the session")

    def test_a_session_that_was_taken_over_goes_on(self, url: BrokerUrl) -> None:
        with MqttClient(url, "a") as a, socket.create_connection((url.host, url.port)) as half_open:
            body = b"\0\4MQTT\4\0\0\x3c" + b"\0\1b"
            half_open.sendall(bytes([0x10, len(body)]) + body)
            assert half_open.recv(4)[3] == 0
            with MqttClient(url, "b", clean=False) as b:
                b.subscribe("d/b/offer")
                half_open.shutdown(socket.SHUT_RDWR)
                threading.Event().wait(0.3)
                a.publish("d/b/offer", b"task")
                eventually(lambda: b.on("d/b/offer") == [b"task"], "a message to the session taken over")

    def test_thirty_clients_may_connect_at_once(self, url: BrokerUrl) -> None:
        done: list[str] = []

        def live(name: str) -> None:
            with MqttClient(url, name) as client:
                client.publish(f"d/{name}/birth", b"hello", retain=True)
                client.subscribe(f"d/{name}/offer", f"d/{name}/rx/+", "d/+/birth")
                done.append(name)

        threads = [threading.Thread(target=live, args=(f"pi-{number}",)) for number in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(done) == 30

    def test_a_broker_that_is_killed_comes_back_on_its_port_and_says_why(
        self, url: BrokerUrl, reports: list[str]
    ) -> None:
        with MqttClient(url, "a") as a:
            os.kill(_listener(url.port), signal.SIGKILL)
            eventually(lambda: len(reports) == 2, "two reports")
            assert "signal 9" in reports[0]
            assert "runs again" in reports[1]
            eventually(a.client.is_connected, "the client to come back")
            a.subscribe("x")
            a.publish("x", b"again")
            eventually(lambda: a.on("x") == [b"again"], "a message after the restart")

    def test_it_listens_on_loopback_alone(self, url: BrokerUrl) -> None:
        table = Path("/proc/net/tcp").read_text()
        listeners = [line.split()[1] for line in table.splitlines()[1:] if line.split()[3] == ports.LISTENING]
        assert [where for where in listeners if where.endswith(f":{url.port:04X}")] == [f"0100007F:{url.port:04X}"]

    def test_it_ends_with_the_block(self, tmp_path: Path) -> None:
        port = ports.free_port(HOST)
        with open_broker(self.kind, host=HOST, port=port, folder=tmp_path, report=print):
            pass
        ports.claim(HOST, port, what="the test", change="")

    def test_it_dies_with_an_aggregator_that_is_killed(self, tmp_path: Path) -> None:
        port = ports.free_port(HOST)
        program = (
            "import sys, time; from pathlib import Path; from aggregator.broker import open_broker\n"
            f"with open_broker({self.kind!r}, host={HOST!r}, port={port}, folder=Path(sys.argv[1]), report=print):\n"
            "    print('open', flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"open\n"
            owner.kill()
        ports.claim(HOST, port, what="the test", change="")


@needs_mosquitto
class TestMosquitto(BrokerContract):
    kind, level = "mosquitto", 5

    def test_what_was_retained_survives_its_restart(self, tmp_path: Path) -> None:
        port = ports.free_port(HOST)
        with open_broker("mosquitto", host=HOST, port=port, folder=tmp_path, report=print) as url:  # noqa: SIM117
            with MqttClient(url, "b") as b:
                b.publish("d/b/birth", b"hello", retain=True)
        with open_broker("mosquitto", host=HOST, port=port, folder=tmp_path, report=print) as url:  # noqa: SIM117
            with MqttClient(url, "a") as a:
                a.subscribe("d/b/birth")
                eventually(lambda: a.on("d/b/birth") == [b"hello"], "the birth")


class TestEmbedded(BrokerContract):
    kind, level = "embedded", 4


def _listener(port: int) -> int:
    """The process that listens on a port."""
    name = ports.holder(port)
    return int(name.partition("process ")[2].rstrip(")"))


def test_auto_prefers_mosquitto_and_makes_do_with_the_embedded_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_mosquitto", lambda: "/somewhere/mosquitto")
    assert choose("auto") == "mosquitto"
    monkeypatch.setattr(broker, "_mosquitto", lambda: None)
    assert choose("auto") == "embedded"
    assert choose("mqtt://broker:1884") == "mqtt://broker:1884"
    with pytest.raises(BrokerError, match="not installed"):
        choose("mosquitto")


def test_a_url_is_used_as_it_is_and_nothing_is_started(tmp_path: Path) -> None:
    with open_broker("mqtts://user:se%40cret@broker", host=HOST, port=1, folder=tmp_path, report=print) as url:
        assert url == BrokerUrl("broker", 8883, tls=True, username="user", password="se@cret")
        assert "cret" not in str(url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "broker", "http://broker", "mqtt://", "mqtt://b:99999", "mqtt://b/path", "mqtt://b?x=1"]
)
def test_what_is_no_broker_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected mqtt://host:port"):
        BrokerUrl.parse(text)


@pytest.mark.parametrize("text", ["mqtt://[::1]:1883", "mqtts://broker:8884", "mqtt://10.0.0.7:1883"])
def test_a_broker_url_is_printed_as_it_was_read(text: str) -> None:
    assert str(BrokerUrl.parse(text)) == text


def test_a_port_in_use_is_named_with_its_holder_and_the_way_out() -> None:
    with socket.create_server((HOST, 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(
            ports.PortError, match=rf"port {port} .*the test is in use by .*process {os.getpid()}\); move"
        ):
            ports.claim(HOST, port, what="the test", change="move", patience_s=0.1)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ports.PortError, match=r"port 4 on 192.0.2.1 for the test: Cannot assign"):
        ports.claim("192.0.2.1", 4, what="the test", change="move")


def test_a_port_that_comes_free_in_time_is_waited_for() -> None:
    holder = socket.create_server((HOST, 0))
    port = holder.getsockname()[1]
    threading.Timer(0.4, holder.close).start()
    ports.claim(HOST, port, what="the test", change="")


def test_a_free_port_is_the_preferred_one_if_it_can_be() -> None:
    port = ports.free_port(HOST)
    assert ports.free_port(HOST, port) == port
    with socket.create_server((HOST, port)):
        assert ports.free_port(HOST, port) != port


def test_a_child_that_does_not_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = Child(
        [sys.executable, "-c", "print('first'); print('out of luck'); exit(3)"],
        log=tmp_path / "log",
        ready=lambda: protocol_level(HOST, ports.free_port(HOST)),
        report=print,
    )
    with pytest.raises(ChildError, match="out of luck"), child:
        pass


def test_a_log_that_grew_too_long_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * (1 << 20) + b"y")
    with Child([sys.executable, "-c", "import time; time.sleep(60)"], log=log, ready=lambda: None, report=print):
        assert log.stat().st_size < 1000


def test_the_configuration_of_mosquitto_keeps_to_its_address_and_bounds_packets() -> None:
    lines = mosquitto_configuration(HOST, 1884, Path("/folder")).splitlines()
    assert "listener 1884 127.0.0.1" in lines
    assert "max_packet_size 262144" in lines
    assert "persistence_location /folder/" in lines


def test_the_folder_of_the_broker_is_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    with open_broker("embedded", host=HOST, port=ports.free_port(HOST), folder=folder, report=print):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [(b"", "closed the connection"), (b"\x20\x02", "closed the connection"), (b"HTTP/1.1 400 Bad Request", "CONNACK")],
)
def test_what_answers_no_mqtt_is_no_broker(answer: bytes, complaint: str) -> None:
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                stream.recv(1024)
                stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoBroker, match=complaint):
            protocol_level(HOST, server.getsockname()[1])
        thread.join()
