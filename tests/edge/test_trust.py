"""A device's certificates: pinned, shown, renewed in time, and explained when they fail; against a real Mosquitto."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec
from edge_support import HOST, Hasty, reply, serving
from mqtt_client import eventually
from programs import needs_mosquitto

from aggregator import ports
from aggregator.authority import Authority
from aggregator.broker import BrokerUrl, Guard, open_broker
from aggregator.keyring import Keyring
from edge.config import Config
from edge.diagnosis import CertificateCheck, check_broker
from edge.finding import Finding, Verdict
from edge.membership import Membership
from edge.mqtt import V311, Address, Connection, TurnedAway
from edge.renewal import Renewal
from edge.trust import Trust, TrustError
from protocol.enrolment import join_token, split_token
from protocol.signing import SigningKey

DAY_S = 86_400.0
KEY = SigningKey(bytes(32))
SERVER = SigningKey.generate().public.raw.hex()


@dataclass
class Member:
    """A device with the certificate that an authority gave it `age_days` ago."""

    trust: Trust
    keyring: Keyring

    def certify(self, *, age_days: float = 0.0, by: Authority | None = None) -> str:
        """Give it a certificate; its serial number."""
        authority = by or self.keyring.authority
        request = bytes.fromhex(_hex_of(self.trust.request("pi-1", KEY)["request"]))
        issued = authority.device(request, "pi-1", time.time() - age_days * DAY_S)
        self.trust.keep_authority(self.keyring.authority.pem)
        self.trust.keep_certificate(issued.pem)
        return issued.serial


def _hex_of(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()


@pytest.fixture
def member(tmp_path: Path) -> Member:
    folder = tmp_path / "device"
    folder.mkdir()
    return Member(Trust(folder), Keyring(tmp_path / "tls", "test", (), time.time))


@pytest.fixture
def url(member: Member, tmp_path: Path) -> Iterator[BrokerUrl]:
    guard = Guard(member.keyring, "bitfleet/v1/test")
    port = ports.free_port(HOST)
    with open_broker("mosquitto", host=HOST, port=port, folder=tmp_path / "broker", report=print, guard=guard) as url:
        yield url


def looked_at(member: Member, url: BrokerUrl) -> Finding:
    return check_broker(Address.parse(str(url)), member.trust, "fleet")


def test_tokens_with_and_without_a_fingerprint_are_taken_apart() -> None:
    """BF-096."""
    assert split_token(join_token("secret", "print")) == ("secret", "print")
    assert split_token(join_token("secret", "")) == ("secret", "")
    for text in ("", "bf1", "bf1.a", "bf2.a.b", "a.b.c", "bf1.a.b.c"):
        assert split_token(text) == (text, "")


@needs_mosquitto
def test_the_doctor_tells_a_good_certificate_from_one_that_is_over_revoked_or_anothers(
    member: Member, url: BrokerUrl, tmp_path: Path
) -> None:
    serial = member.certify()
    assert looked_at(member, url).verdict is Verdict.PASS
    assert CertificateCheck(member.trust).run().verdict is Verdict.PASS

    member.certify(age_days=91)
    finding = looked_at(member, url)
    assert (finding.verdict, "certificate is over" in finding.detail) == (Verdict.FAIL, True)
    assert CertificateCheck(member.trust).run().verdict is Verdict.FAIL

    (tmp_path / "other").mkdir()
    member.certify(by=Authority.open(tmp_path / "other", "test"))
    assert "another fleet's" in looked_at(member, url).detail

    member.certify(age_days=-2)
    assert CertificateCheck(member.trust).run().verdict is Verdict.WARN, "the device's clock is behind"

    member.keyring.revoke([serial, member.certify()])
    eventually(lambda: "was revoked" in looked_at(member, url).detail, "the broker to know")
    member.trust.keep_authority(Authority.open(tmp_path / "other", "test").pem)
    assert "another authority" in looked_at(member, url).detail


@needs_mosquitto
def test_a_broker_that_does_not_take_the_certificate_is_told_from_one_that_is_away(
    member: Member, url: BrokerUrl
) -> None:
    member.certify(age_days=91)
    address = Address.parse(str(url))
    with pytest.raises(TurnedAway, match="may not take this device's certificate"):
        Connection(address, "pi-1", V311, context=member.trust.broker("fleet")).open()


def test_damage_is_named_with_what_to_do(member: Member) -> None:
    member.certify()
    (member.trust.folder / "tls.crt").write_text("x")
    finding = CertificateCheck(member.trust).run()
    assert (finding.verdict, "--token" in finding.advice) == (Verdict.FAIL, True)
    (member.trust.folder / "tls.key").write_text("x")
    with pytest.raises(TrustError, match="join again"):
        member.trust.request("pi-1", KEY)


def test_a_key_that_others_may_read_is_named(member: Member) -> None:
    member.certify()
    (member.trust.folder / "tls.key").chmod(0o640)
    assert "chmod 600" in CertificateCheck(member.trust).run().advice


def test_a_certificate_for_another_key_is_not_kept(member: Member) -> None:
    member.certify()
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(TrustError, match="another key"):
        member.trust.keep_certificate(member.keyring.authority.client(public, "pi-1", time.time()).decode())


@dataclass
class Aggregator:
    """Answers joins with certificates of `member`'s authority, or refuses."""

    member: Member
    refuses: bool = False
    asked: int = 0

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.asked += 1
        if self.refuses:
            reply(request, 403, json.dumps({"detail": "device 'pi-1' was revoked"}).encode())
            return
        issued = self.member.keyring.authority.device(bytes.fromhex(_hex_of(body["request"])), "pi-1", time.time())
        values = {"fleet": "test", "server_key": SERVER, "broker": "mqtts://h:1", "certificate": issued.pem}
        reply(request, 201, json.dumps(values | {"ca": self.member.keyring.authority.pem}).encode())


@pytest.fixture
def watched(member: Member, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Renewal]]:
    """Renewals that look often."""
    monkeypatch.setattr("edge.renewal.LOOK_EVERY_S", 0.02)
    with urllib3.PoolManager() as http:

        def of(url: str) -> Renewal:
            config = Config(state_dir=member.trust.folder, device="pi-1", aggregator=url)
            membership = Membership("pi-1", "test", SERVER, "mqtts://h:1", "fleet")
            return Renewal(config, membership, member.trust, KEY, http, rng=Hasty())

        yield of


@pytest.mark.parametrize(
    ("age_days", "turned_away", "renews"), [(10, False, False), (50, False, True), (10, True, True)]
)
def test_a_certificate_is_renewed_at_half_time_or_when_the_broker_does_not_take_it(
    member: Member, watched: Callable[..., Renewal], age_days: float, turned_away: bool, renews: bool
) -> None:
    """BF-098."""
    member.certify(age_days=age_days)
    before = member.trust.certificate
    door = Aggregator(member)
    with serving(door) as url, watched(url).watching(lambda: turned_away and door.asked == 0, print):
        if renews:
            eventually(lambda: member.trust.certificate != before, "the next certificate")
        else:
            threading.Event().wait(0.2)
            assert door.asked == 0


def test_a_device_that_was_revoked_is_told_when_it_asks(member: Member, watched: Callable[..., Renewal]) -> None:
    """BF-098."""
    member.certify(age_days=50)
    told: list[str] = []
    with serving(Aggregator(member, refuses=True)) as url, watched(url).watching(lambda: False, told.append):
        eventually(lambda: told, "the word")
    assert "was revoked" in told[0]
