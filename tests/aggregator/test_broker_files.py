"""Configurations for brokers of one's own say the same as SPEC's table; Mosquitto's is run and used."""

import re
import ssl
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import pass_for
from mqtt_client import MqttClient, eventually
from programs import needs, needs_mosquitto
from typer.testing import CliRunner

from aggregator import ports
from aggregator.broker import BrokerUrl
from aggregator.broker_files import KINDS
from aggregator.cli import app
from aggregator.config import ConfigError, load
from aggregator.keyring import Keyring
from aggregator.mqtt_probe import NoBroker, protocol_level
from aggregator.service import open_service
from protocol.rights import DEVICE_RIGHTS, Act
from protocol.topics import Topics

TOPICS = Topics("test")
ROOT = TOPICS.root
Rights = set[tuple[str, str]]
NETWORK = "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=10"


def table(own: str) -> Rights:
    return {(right.act.value, right.filter(ROOT, own)) for right in DEVICE_RIGHTS}


def in_access(text: str) -> Rights:
    acts = {"write": Act.PUBLISH.value, "read": Act.SUBSCRIBE.value}
    return {(acts[verb], topic) for verb, topic in re.findall(r"^pattern (\w+) (\S+)$", text, re.MULTILINE)}


def in_acl(text: str) -> Rights:
    return set(re.findall(r'^\{allow, all, (\w+), \["([^"]+)"\]\}\.$', text, re.MULTILINE))


def in_realm(text: str) -> Rights:
    roles = {role.findtext("id"): role for role in ET.fromstring(text).iter("role")}
    permissions = roles["device"].iter("permission")
    return {(str(each.findtext("activity")).lower(), str(each.findtext("topic"))) for each in permissions}


@pytest.mark.parametrize(
    ("kind", "file", "read", "own"),
    [
        ("mosquitto", "access", in_access, "%u"),
        ("vernemq", "access", in_access, "%u"),
        ("emqx", "acl.conf", in_acl, "${username}"),
        ("hivemq", "file-realm.xml", in_realm, "${authentication-key}"),
    ],
)
def test_every_broker_is_given_exactly_the_table(kind: str, file: str, read: object, own: str) -> None:
    assert callable(read)
    assert read(KINDS[kind](ROOT, "/etc/bitfleet", 8883)[file]) == table(own)


@pytest.mark.parametrize("kind", KINDS)
def test_every_broker_asks_for_certificates_names_by_them_and_bounds_packets_and_queues(kind: str) -> None:
    text = "".join(KINDS[kind](ROOT, "/etc/bitfleet", 8883).values())
    asked = {
        "mosquitto": ["require_certificate true", "use_username_as_clientid true", "max_packet_size 262144"],
        "vernemq": ["require_certificate = on", "reg.client_id == reg.username", "max_message_size = 262144"],
        "emqx": ["fail_if_no_peer_cert = true", "peer_cert_as_clientid = cn", "max_packet_size = 256KB"],
        "hivemq": ["<client-authentication-mode>REQUIRED", "subject-common-name", "<max-packet-size>262144"],
    }[kind]
    for line in (*asked, "20000", "8883", "/etc/bitfleet/server."):
        assert line in text
    for file, content in KINDS[kind](ROOT, "/etc/bitfleet", 8883).items():
        if file.endswith(".xml"):
            ET.fromstring(content)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[BrokerUrl, Keyring]]:
    """A Mosquitto started by hand with the files that the command wrote."""
    port = ports.free_port("127.0.0.1")
    out, state = tmp_path / "broker", tmp_path / "state"
    line = ["broker-config", "mosquitto", "--out", str(out), "--state", str(state), "--fleet", "test"]
    ran = CliRunner().invoke(app, [*line, "--port", str(port), "--name", "127.0.0.1"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert (out / "server.key").stat().st_mode & 0o077 == 0
    config = out / "mosquitto.conf"
    config.write_text(f"user root\n{config.read_text()}")
    keyring = Keyring(state / "tls", "test", (), time.time)
    with subprocess.Popen([needs("mosquitto"), "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            probe = keyring.client_context("probe")
            eventually(lambda: _answers(port, probe), "the broker")
            yield BrokerUrl("127.0.0.1", port, tls=True), keyring
        finally:
            process.terminate()


@needs_mosquitto
def test_the_aggregator_and_its_devices_use_a_broker_of_ones_own(
    outside: tuple[BrokerUrl, Keyring], tmp_path: Path
) -> None:
    url, keyring = outside
    settings = {
        "state_dir": tmp_path / "state",
        "fleet": "test",
        "http_port": 0,
        "broker": str(url),
        "broker_trust": "fleet",
        "tls": "on",
        "job": {"architecture": NETWORK},
    }
    config = load(environment={}, overrides=settings)
    with open_service(config) as service:
        assert service.link.wait(20), "the aggregator is let in by its certificate"
        assert service.desk.broker_for("aggregator.lan") == str(url)
        own = pass_for(keyring, "pi-1", tmp_path)
        with MqttClient(url, "pi-1", context=own.context) as device:
            device.subscribe(TOPICS.server_state)
            eventually(lambda: device.on(TOPICS.server_state), "the aggregator's state")
    with pytest.raises(ConfigError, match="broker_trust = 'me'"):
        load(environment={}, overrides=settings | {"broker_trust": "me"})


def test_a_broker_that_is_not_known_is_named() -> None:
    ran = CliRunner().invoke(app, ["broker-config", "rabbit", "--out", "x"], env={"COLUMNS": "200"})
    assert ran.exit_code == 2
    assert "mosquitto, vernemq, emqx, hivemq" in " ".join(ran.output.split())


def _answers(port: int, context: ssl.SSLContext) -> bool:
    try:
        protocol_level("127.0.0.1", port, context=context)
    except NoBroker:
        return False
    return True
