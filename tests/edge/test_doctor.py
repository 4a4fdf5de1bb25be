"""Every check passes on a healthy device and says what to do on a sick one."""

import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from edge_support import HOST, broker, export, reply, serving, slot_of, write_digits
from pi5 import install

from aggregator import ports
from edge import doctor
from edge.config import Config
from edge.doctor import examine
from edge.finding import Finding, Verdict
from edge.membership import MEMBERSHIP_FILE, Membership, device_key, save_membership
from edge.runtime import Runtime
from protocol.signing import SigningKey

SERVER = SigningKey.generate().public.raw.hex()


def healthy(request: BaseHTTPRequestHandler) -> None:
    reply(request, 200 if request.path == "/healthz" else 404, b"{}")


def found(config: Config) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(config)}


@pytest.fixture
def member(tmp_path: Path) -> Config:
    """A device that has joined, with nobody at the other end."""
    write_digits(tmp_path / "digits.npz")
    device_key(tmp_path)
    nowhere = f"{HOST}:{ports.free_port(HOST)}"
    save_membership(tmp_path, Membership("pi-1", "test", SERVER, f"mqtt://{nowhere}"))
    data = tmp_path / "digits.npz"
    return Config(state_dir=tmp_path, device="pi-1", aggregator=f"http://{nowhere}", data=data, meter="none")


@pytest.mark.parametrize(("kind", "version"), [("auto", ""), ("embedded", "MQTT 3.1.1")])
def test_a_healthy_device_passes_every_check(member: Config, tmp_path: Path, kind: str, version: str) -> None:
    with broker(kind, tmp_path / "broker") as url, serving(healthy) as aggregator:
        save_membership(tmp_path, Membership("pi-1", "test", SERVER, str(url)))
        findings = found(replace(member, aggregator=aggregator))
    assert {finding.verdict for finding in findings.values()} == {Verdict.PASS}
    assert version in findings["broker"].detail
    assert "60 pictures" in findings["data"].detail
    assert "modelled" in findings["meter"].detail
    assert "aggregator" in findings["clock"].detail


def test_a_fresh_device_is_told_to_join(tmp_path: Path) -> None:
    findings = found(Config(state_dir=tmp_path / "new", device="pi-1"))
    assert findings["key"].verdict is Verdict.WARN
    assert findings["membership"].verdict is Verdict.FAIL
    assert "--token" in findings["membership"].advice
    assert findings["data"].verdict is Verdict.WARN
    assert not (tmp_path / "new").exists()


def test_an_absent_broker_and_aggregator_are_named_with_their_addresses(member: Config) -> None:
    findings = found(member)
    for check in ("broker", "aggregator"):
        assert findings[check].verdict is Verdict.FAIL
        assert HOST in findings[check].detail
        assert "firewall" in findings[check].advice


def test_an_aggregator_in_trouble_is_a_failure(member: Config) -> None:
    with serving(lambda request: reply(request, 503, b"")) as url:
        assert "answered 503" in found(replace(member, aggregator=url))["aggregator"].detail


def test_a_key_that_others_may_read_is_a_failure_with_the_command_that_helps(member: Config) -> None:
    path = member.state_dir / "device.key"
    path.chmod(0o644)
    finding = found(member)["key"]
    assert finding.verdict is Verdict.FAIL
    assert finding.advice == f"chmod 600 {path}"


def test_damaged_key_and_membership_are_failures_and_not_crashes(member: Config) -> None:
    (member.state_dir / "device.key").write_bytes(b"x")
    (member.state_dir / MEMBERSHIP_FILE).write_bytes(b"{")
    findings = found(member)
    assert findings["key"].verdict is Verdict.FAIL
    assert findings["membership"].verdict is Verdict.FAIL
    assert findings["broker"].verdict is Verdict.WARN


def test_unusable_pictures_are_a_failure(member: Config) -> None:
    assert member.data is not None
    member.data.write_bytes(b"no archive")
    assert found(member)["data"].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.22.1", "fail"), ("1.23.0", "pass"), ("1.28.9", "pass"), ("1.29.0", "fail"), ("not installed", "fail")],
)
def test_a_runtime_that_would_phone_home_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, version: str, verdict: str
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda _: version)
    assert doctor.RuntimeCheck().run().verdict == verdict


def test_the_installed_model_is_run_and_its_memory_told(member: Config) -> None:
    assert "none yet" in found(member)["model"].detail
    first, second = export(0), export(1)
    runtime = Runtime(member.state_dir / "models")
    for version, data in enumerate((first, second), 6):
        runtime.install(data, slot_of(data, version))
    finding = found(replace(member, threads=2))["model"]
    assert finding.verdict is Verdict.PASS
    assert re.match(
        r"version 7 at W8A8 answers on 2 threads; this process takes \d+ MB with it, \d+ at", finding.detail
    )
    (member.state_dir / "models" / f"{slot_of(second).digest}.onnx").write_bytes(second[:-1])
    finding = found(member)["model"]
    assert finding.verdict is Verdict.WARN
    assert "damaged" in finding.detail


def test_the_doctor_says_how_binary_convolutions_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITFLEET_KERNEL", "plain")
    detail = doctor.RuntimeCheck().run().detail
    assert "binary convolutions in standard operators, as BITFLEET_KERNEL=plain asks" in detail


def test_a_meter_is_asked_and_described(member: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    finding = doctor.MeterCheck(replace(member, meter="raspberry")).run()
    assert finding.verdict is Verdict.PASS
    pattern = r"raspberry \(rail, ±10 %, 5 readings a second\): 3\.\d{3} W now; includes the board's regulators"
    assert re.match(pattern, finding.detail)


def test_a_meter_that_is_set_and_fails_is_a_warning_with_advice(
    member: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = install(tmp_path, monkeypatch)
    said.write_text("error=2")
    finding = doctor.MeterCheck(replace(member, meter="raspberry")).run()
    assert finding.verdict is Verdict.WARN
    assert "'error=2'" in finding.detail
    assert "energy will be modelled" in finding.detail
    assert "bitfleet-edge meters" in finding.advice


def test_a_meter_that_vanishes_while_it_is_looked_at_is_a_warning(
    member: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = install(tmp_path, monkeypatch)
    threading.Timer(0.5, said.unlink).start()
    finding = doctor.MeterCheck(replace(member, meter="raspberry")).run()
    assert finding.verdict is Verdict.WARN
    assert "ended with status 1" in finding.detail


def test_a_clock_that_is_off_is_a_warning(member: Config) -> None:
    def long_ago(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(200)
        request.send_header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with serving(long_ago) as url:
        finding = found(replace(member, aggregator=url))["clock"]
    assert finding.verdict is Verdict.WARN
    assert "ahead of the aggregator" in finding.detail
