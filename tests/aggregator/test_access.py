"""A real Mosquitto that lets devices in by certificate: to their own topics, under their own name, or not at all."""

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from certificates import Pass, pass_for
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto

from aggregator import ports
from aggregator.authority import Authority
from aggregator.broker import BrokerUrl, Guard, open_broker
from aggregator.eviction import evict
from aggregator.keyring import Keyring
from protocol.envelope import AGGREGATOR
from protocol.topics import Topics

pytestmark = needs_mosquitto

HOST = "127.0.0.1"
TOPICS = Topics("test")
ROOT = TOPICS.root
OWN, OTHER = "pi-1", "pi-2"


@dataclass
class Guarded:
    """A broker and the certificates it takes."""

    url: BrokerUrl
    keyring: Keyring
    folder: Path
    passes: dict[str, Pass] = field(default_factory=dict)

    def client(self, name: str, *, says: str = "", clean: bool = True) -> MqttClient:
        """A client with the certificate of `name`, which may say it is somebody else."""
        if name == AGGREGATOR:
            return MqttClient(self.url, AGGREGATOR, context=self.keyring.client_context())
        if name not in self.passes:
            self.passes[name] = pass_for(self.keyring, name, self.folder)
        return MqttClient(self.url, says or name, context=self.passes[name].context, clean=clean)

    def refusal(self, context: ssl.SSLContext) -> str:
        """Why somebody is not let in."""
        said = self.said(context)
        assert said, "the broker took the certificate"
        return said

    def said(self, context: ssl.SSLContext) -> str:
        """Why a client is turned away, before it has said a word; empty if the broker waits for its CONNECT."""
        try:
            with (
                socket.create_connection((self.url.host, self.url.port), 5.0) as plain,
                context.wrap_socket(plain, server_hostname=self.url.host) as stream,
            ):
                stream.settimeout(0.3)
                stream.recv(1)
        except TimeoutError:
            return ""
        except ssl.SSLError as error:
            return str(error)
        return "closed"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keyring = Keyring(folder / "tls", "test", (), time.time)
    port = ports.free_port(HOST)
    with open_broker(
        "mosquitto", host=HOST, port=port, folder=folder / "broker", report=print, guard=Guard(keyring, ROOT)
    ) as url:
        assert url.tls
        yield Guarded(url, keyring, folder)


def topics_of(device: str) -> dict[str, str]:
    """Every row of SPEC's table for a device: what it may do there."""
    return {
        TOPICS.server_state: "read",
        TOPICS.round_state(): "read",
        TOPICS.round_state("night"): "read",
        TOPICS.device(device, "state"): "write",
        TOPICS.device(device, "birth"): "write",
        TOPICS.device(device, "tele"): "write",
        TOPICS.device(device, "offer"): "read",
        TOPICS.response(device, "t"): "write",
        TOPICS.receipt(device, "t"): "read",
        TOPICS.manifest("0", device, "t"): "write",
        TOPICS.chunk("0", device, "t", 7): "write",
        TOPICS.model("W8A8", bytes(32), 3): "read",
    }


EVERY = (*topics_of(OWN), *topics_of(OTHER), f"{ROOT}/other", "bitfleet/v1/another/srv/state", "elsewhere")


def test_a_device_publishes_to_its_own_topics_and_to_no_other(guarded: Guarded) -> None:
    allowed = {topic for topic, act in topics_of(OWN).items() if act == "write"}
    with guarded.client(AGGREGATOR) as aggregator, guarded.client(OWN) as device:
        aggregator.subscribe(f"{ROOT}/#")
        for topic in EVERY:
            device.publish(topic, b"x")
        device.publish(TOPICS.device(OWN, "tele"), b"end")
        eventually(lambda: b"end" in aggregator.on(TOPICS.device(OWN, "tele")), "the last message")
        assert {message.topic for message in aggregator.received} == allowed


def test_a_device_hears_its_own_topics_and_no_other(guarded: Guarded) -> None:
    allowed = {topic for topic, act in topics_of(OWN).items() if act == "read"}
    with guarded.client(AGGREGATOR) as aggregator, guarded.client(OWN) as device:
        device.subscribe("#", *EVERY, f"{ROOT}/d/+/offer", f"{ROOT}/up/#")
        for topic in EVERY:
            aggregator.publish(topic, b"x")
        aggregator.publish(TOPICS.device(OWN, "offer"), b"end")
        eventually(lambda: b"end" in device.on(TOPICS.device(OWN, "offer")), "the last message")
        assert {message.topic for message in device.received} == allowed


def test_the_client_id_is_the_certificates_name_whatever_a_client_says(guarded: Guarded) -> None:
    """Else a device could take another's session over, with all that waits in it."""
    with guarded.client(OTHER, clean=False) as other:
        other.subscribe(TOPICS.device(OTHER, "offer"))
    with guarded.client(AGGREGATOR) as aggregator:
        aggregator.publish(TOPICS.device(OTHER, "offer"), b"waits")
        with guarded.client(OWN, says=OTHER, clean=False) as thief:
            thief.subscribe(TOPICS.device(OWN, "offer"), TOPICS.device(OTHER, "offer"))
            aggregator.publish(TOPICS.device(OWN, "offer"), b"own")
            eventually(lambda: thief.on(TOPICS.device(OWN, "offer")), "its own message")
            assert thief.on(TOPICS.device(OTHER, "offer")) == []
        with guarded.client(OTHER, clean=False) as other:
            assert other.session_present
            eventually(lambda: other.on(TOPICS.device(OTHER, "offer")) == [b"waits"], "what waited")


def test_without_a_good_certificate_nobody_connects(guarded: Guarded, tmp_path: Path) -> None:
    assert "certificate required" in guarded.refusal(guarded.keyring.client_context(None))
    assert "certificate expired" in guarded.refusal(pass_for(guarded.keyring, OWN, tmp_path, age_days=91).context)
    stranger = Authority.open(_made(tmp_path / "stranger"), "test")
    assert "unknown ca" in guarded.refusal(pass_for(guarded.keyring, OWN, tmp_path, by=stranger).context)


def test_a_certificate_that_is_not_good_yet_is_refused(guarded: Guarded, tmp_path: Path) -> None:
    assert "bad certificate" in guarded.refusal(pass_for(guarded.keyring, OWN, tmp_path, age_days=-2).context)


def test_a_revoked_device_is_cut_off_and_stays_out_while_others_go_on(guarded: Guarded) -> None:
    with guarded.client("pi-3") as lost, guarded.client(OTHER) as other:
        serial = guarded.passes["pi-3"].issued.serial
        guarded.keyring.revoke([serial])
        eventually(lambda: "certificate revoked" in guarded.said(guarded.passes["pi-3"].context), "the broker to know")
        evict(guarded.keyring, guarded.url, "pi-3", time.time())
        eventually(lambda: not lost.client.is_connected(), "the connection to end")
        assert other.client.is_connected()
        other.subscribe(TOPICS.device(OTHER, "offer"))
        assert "certificate revoked" in guarded.refusal(guarded.passes["pi-3"].context)
        lost.client.disconnect()


def test_of_two_lists_in_one_second_the_later_counts(guarded: Guarded, tmp_path: Path) -> None:
    passes = [pass_for(guarded.keyring, name, tmp_path) for name in ("pi-4", "pi-5")]
    serials = [each.issued.serial for each in passes]
    for count in (1, 2):
        guarded.keyring.revoke(serials[:count])
    eventually(lambda: "certificate revoked" in guarded.said(passes[1].context), "the broker to know")


def test_a_devices_certificate_is_no_servers(guarded: Guarded, tmp_path: Path) -> None:
    """A device that trusts the authority alone asks for no host name: nobody but the aggregator can be a server."""
    own = pass_for(guarded.keyring, OWN, tmp_path)
    impostor = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    impostor.load_cert_chain(next(tmp_path.glob(f"{OWN}-{own.issued.serial}.pem")))
    here, there = (ssl.MemoryBIO() for _ in range(2))
    server = impostor.wrap_bio(here, there, server_side=True)
    trusting = guarded.keyring.client_context(None)
    trusting.check_hostname = False
    device = trusting.wrap_bio(there, here)
    for end in (device, server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        device.do_handshake()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
