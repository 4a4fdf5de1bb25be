"""The fleet's authority and its files: what it certifies, for whom, how long; what it renews and what it refuses."""

import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import request_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fleet import Fleet
from hypothesis import given
from hypothesis import strategies as st

from aggregator import certificates, handlers, joining
from aggregator.authority import Authority, RequestRefused, requested_key
from aggregator.faults import CommandRefused, Fault
from aggregator.keyring import Keyring
from aggregator.secret_files import SecretError
from aggregator.store import Certificate
from protocol.enrolment import proof_bytes, split_token
from protocol.signing import SigningKey

NOW = 1.8e9
DAY_S = 86_400.0
KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))
CURVE = ec.SECP256R1()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path, "test")


@pytest.fixture
def guarded(fleet: Fleet, tmp_path: Path) -> Fleet:
    """A fleet with an authority, on the test's own clock."""
    fleet.room.keyring = Keyring(tmp_path / "tls", "test", (), fleet.clock.wall)
    return fleet


def loaded(pem: str | bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem)


def joined(fleet: Fleet, request: bytes, *, token: str = "", proof: bytes | None = None) -> str:
    """The certificate that joining gives."""
    shown = KEY.sign(proof_bytes("pi-1", request)) if proof is None else proof
    public = KEY.public.raw
    return joining.join(
        fleet.room, device="pi-1", public_key=public, token=token, request=request, proof=shown
    ).certificate


# --- what it certifies ---


def test_the_key_is_made_once_is_its_owners_and_belongs_to_the_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    again = Authority.open(tmp_path, "test")
    assert (again.pem, again.fingerprint) == (authority.pem, authority.fingerprint)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    (tmp_path / "ca.key").unlink()
    with pytest.raises(SecretError, match="belongs to another key"):
        Authority.open(tmp_path, "test")


@pytest.mark.parametrize(("file", "words"), [("ca.key", "no private key"), ("ca.crt", "no certificate")])
def test_damage_is_named(tmp_path: Path, authority: Authority, file: str, words: str) -> None:
    (tmp_path / file).write_bytes(b"damaged")
    with pytest.raises(SecretError, match=words):
        Authority.open(tmp_path, "test")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        Authority.open(tmp_path, "test")


def test_a_server_is_certified_for_its_names_since_1970(authority: Authority) -> None:
    """A Raspberry Pi that wakes in 1970 must be able to talk to somebody."""
    public = ec.generate_private_key(CURVE).public_key()
    made = loaded(authority.server(public, ["fleet.example.org", "10.0.0.2"], NOW))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"fleet.example.org", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"10.0.0.2", "127.0.0.1"} <= {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    assert made.not_valid_before_utc == authority.certificate.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
    made.verify_directly_issued_by(authority.certificate)


def test_a_device_is_certified_under_the_name_it_was_taken_in_with_and_for_nothing_but_a_client(
    authority: Authority,
) -> None:
    key = ec.generate_private_key(CURVE)
    issued = authority.device(request_for(key, "aggregator"), "pi-1", NOW, days=90)
    made = loaded(issued.pem)
    (name,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert (name.value, list(uses)) == ("pi-1", [ExtendedKeyUsageOID.CLIENT_AUTH])
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert (issued.expires_at, int(issued.serial, 16)) == (NOW + 90 * DAY_S, made.serial_number)
    assert made.public_key() == key.public_key()


def _rsa_request() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    key = rsa.generate_private_key(65537, 2048)
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


def test_a_request_for_another_kind_of_key_or_without_its_signature_is_refused() -> None:
    good = request_for(ec.generate_private_key(CURVE), "x")
    assert requested_key(good)
    spoiled = good[:-1] + bytes([good[-1] ^ 1])
    for request, words in (
        (_rsa_request(), "P-256"),
        (request_for(ec.generate_private_key(ec.SECP384R1()), "x"), "P-256"),
        (spoiled, "not signed by the key|not readable"),
        (good + bytes(5000), "4096 at most"),
    ):
        with pytest.raises(RequestRefused, match=words):
            requested_key(request)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    with pytest.raises(RequestRefused):
        requested_key(data)


# --- files ---


def test_certificates_are_renewed_at_half_time_or_for_a_new_name_and_listeners_told(tmp_path: Path) -> None:
    now = [NOW]
    keyring = Keyring(tmp_path, "test", (), lambda: now[0])
    told: list[int] = []
    keyring.listen(lambda: told.append(1))
    first = keyring.certificate("server").read_bytes()
    now[0] += 300 * DAY_S
    keyring.renew()
    assert (keyring.certificate("server").read_bytes(), told) == (first, [])
    now[0] += 100 * DAY_S
    keyring.renew()
    assert (keyring.certificate("server").read_bytes() != first, told) == (True, [1])
    named = Keyring(tmp_path, "test", ("fleet.lan",), lambda: now[0]).certificate("server").read_bytes()
    assert b"fleet.lan" in loaded(named).public_bytes(serialization.Encoding.DER)


def test_every_list_of_revoked_certificates_is_later_than_the_one_before(tmp_path: Path) -> None:
    """Whatever the clock does: OpenSSL believes the later of two."""
    now = [NOW]
    keyring = Keyring(tmp_path, "test", (), lambda: now[0])
    times = []
    for step in (0.0, 0.0, -1000.0, 5000.0):
        now[0] += step
        keyring.revoke(["ff"])
        read = x509.load_pem_x509_crl((tmp_path / "revoked.pem").read_bytes())
        times.append(read.last_update_utc)
        assert [entry.serial_number for entry in read] == [255]
    assert times == sorted(set(times))


# --- joining, renewing, revoking ---


def test_a_device_gets_a_certificate_for_a_good_token_and_a_proof(guarded: Fleet) -> None:
    """BF-097."""
    token = joining.create_token(guarded.room, 1, 60.0)
    assert guarded.room.keyring is not None
    assert split_token(token)[1] == guarded.room.keyring.authority.fingerprint
    request = request_for(ec.generate_private_key(CURVE), "pi-1")
    made = loaded(joined(guarded, request, token=token))
    made.verify_directly_issued_by(guarded.room.keyring.authority.certificate)


@pytest.mark.parametrize("proof", [b"", bytes(64), OTHER.sign(b"x")])
def test_who_only_knows_the_public_key_gets_no_certificate(guarded: Fleet, proof: bytes) -> None:
    """BF-097: else whoever saw a device's public key could be that device at the broker."""
    token = joining.create_token(guarded.room, 1, 60.0)
    request = request_for(ec.generate_private_key(CURVE), "pi-1")
    joined(guarded, request, token=token)
    stolen = request_for(ec.generate_private_key(CURVE), "pi-1")
    for shown in (proof, KEY.sign(proof_bytes("pi-1", request)), KEY.sign(proof_bytes("pi-2", stolen))):
        with pytest.raises(CommandRefused, match="proof is not signed") as refused:
            joined(guarded, stolen, proof=shown)
        assert refused.value.fault is Fault.FORBIDDEN
    assert len(guarded.rows(Certificate)) == 1


def test_a_member_renews_without_a_token_and_gets_the_same_one_before_half_time(guarded: Fleet) -> None:
    """BF-098."""
    request = request_for(ec.generate_private_key(CURVE), "pi-1")
    first = joined(guarded, request, token=joining.create_token(guarded.room, 1, 60.0))
    assert joined(guarded, request) == first, "an answer that was lost"
    guarded.clock.pass_(46 * DAY_S)
    second = joined(guarded, request)
    assert loaded(second).not_valid_after_utc > loaded(first).not_valid_after_utc
    guarded.clock.pass_(400 * DAY_S)
    assert joined(guarded, request) not in {first, second}, "one that slept too long"
    with guarded.room.store.transaction() as session:
        certificates.forget_expired(session, guarded.clock.wall())
    assert len(guarded.rows(Certificate)) == 1


def test_a_device_cannot_fill_the_table_with_certificates(guarded: Fleet) -> None:
    token = joining.create_token(guarded.room, 1, 60.0)
    for _ in range(certificates.HELD_AT_MOST):
        joined(guarded, request_for(ec.generate_private_key(CURVE), "pi-1"), token=token)
    with pytest.raises(CommandRefused, match="has 8 certificates"):
        joined(guarded, request_for(ec.generate_private_key(CURVE), "pi-1"))


def test_a_revoked_devices_certificates_are_listed_until_they_expire_and_it_gets_no_other(guarded: Fleet) -> None:
    """BF-098."""
    cut: list[str] = []
    guarded.room.cut_off = cut.append
    request = request_for(ec.generate_private_key(CURVE), "pi-1")
    serial = f"{loaded(joined(guarded, request, token=joining.create_token(guarded.room, 1, 60.0))).serial_number:x}"
    handlers.revoke(guarded.room, "pi-1")
    assert cut == ["pi-1"]
    with guarded.room.store.reading() as session:
        assert certificates.listed(session, guarded.clock.wall()) == [serial]
        assert certificates.listed(session, guarded.clock.wall() + 91 * DAY_S) == []
    with pytest.raises(CommandRefused, match="was revoked"):
        joined(guarded, request)


def test_a_fleet_without_an_authority_gives_no_certificates(fleet: Fleet) -> None:
    request = request_for(ec.generate_private_key(CURVE), "pi-1")
    assert joined(fleet, request, token=joining.create_token(fleet.room, 1, 60.0)) == ""


def test_certificates_begin_before_now_for_brokers_that_are_behind(authority: Authority) -> None:
    made = loaded(authority.device(request_for(ec.generate_private_key(CURVE), "x"), "pi-1", time.time()).pem)
    assert made.not_valid_before_utc.timestamp() < time.time() - 3600
