"""A guarded fleet: real certificates, a real Mosquitto, a real agent that joins, trains and is shut out."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
from edge_command import COMMAND, ENVIRONMENT, ROOT, edge
from edge_support import write_digits
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto
from typer.testing import CliRunner

from aggregator.broker import BrokerError, BrokerUrl
from aggregator.cli import app
from aggregator.config import Config, load
from aggregator.secret_files import admin_token
from aggregator.service import Service, open_service
from edge.join import join
from edge.membership import load_membership
from edge.trust import Trust
from protocol.enrolment import split_token
from protocol.envelope import Stamp, seal
from protocol.messages import Telemetry
from protocol.signing import SigningKey
from protocol.topics import Topics

pytestmark = needs_mosquitto

NETWORK = "resnet18:width=0.0625,stem=3x3,input=1x32x32,classes=10"


def config_of(folder: Path, **changes: Any) -> Config:
    job = {"architecture": NETWORK, "rounds": 1, "recipe": "sign", "min_devices": 1, "deadline_s": 60.0, "epochs": 1}
    overrides = {
        "state_dir": folder / "state",
        "fleet": "test",
        "http_port": 0,
        "broker": "mosquitto",
        "broker_port": 0,
        "tls": "on",
        "page": False,
        "job": job,
    }
    return load(environment={}, overrides=overrides | changes)


@contextmanager
def running(config: Config) -> Iterator[tuple[Service, httpx.Client]]:
    """A service at work, and an administrator at its door."""
    with open_service(config) as service:
        thread = threading.Thread(target=service.run)
        thread.start()
        keyring = service.desk.room.keyring
        headers = {"Authorization": f"Bearer {admin_token(config.state_dir)}"}
        verify: Any = keyring.client_context(None) if keyring else True
        with httpx.Client(
            base_url=service.endpoint.http, headers=headers, trust_env=False, verify=verify, timeout=30.0
        ) as http:
            try:
                assert service.link.wait(20)
                yield service, http
            finally:
                service.stop()
                thread.join()


def token_of(http: httpx.Client, **fields: Any) -> str:
    token: str = http.post("/api/v1/tokens", json=fields).json()["token"]
    return token


@contextmanager
def agent(folder: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """`bitfleet-edge run` as a process, ended with the block."""
    log = folder / "agent.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*COMMAND, "run", "--state", folder, *arguments], cwd=ROOT, env=ENVIRONMENT, stderr=output, text=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_an_agent_joins_by_fingerprint_trains_is_revoked_and_is_cut_off(tmp_path: Path) -> None:
    """BF-096, BF-097, BF-098."""
    device = tmp_path / "device"
    device.mkdir()
    write_digits(device / "digits.npz")
    with running(config_of(tmp_path)) as (service, http):
        token = token_of(http, group="kitchen")
        assert token.startswith("bf1.")
        where = ("--aggregator", service.endpoint.http, "--device", "pi-1", "--meter", "none")
        with agent(device, *where, "--token", token, "--data", device / "digits.npz") as process:
            eventually(lambda: http.get("/api/v1/status").json()["state"] == "announced", "a round", within_s=60)
            shown = http.get("/api/v1/devices/pi-1").json()
            assert (shown["status"], shown["group"], shown["refusals"]) == ("online", "kitchen", {})
            assert {path.stat().st_mode & 0o777 for path in device.glob("tls.*")} == {0o600}
            membership = load_membership(device)
            assert membership is not None
            assert membership.broker.startswith("mqtts://")
            http.post("/api/v1/devices/pi-1/revoke").raise_for_status()
            assert process.wait(30) == 1
        assert "was revoked" in (device / "agent.log").read_text()
        findings = json.loads(edge("doctor", "--state", device, *where, "--json", expect=1).stdout)
        assert {finding["check"]: finding["verdict"] for finding in findings}["broker"] == "fail"


@pytest.mark.parametrize("kind", ["other fleet", "plain", "no token"])
def test_a_device_that_is_led_astray_says_nothing_and_says_why(tmp_path: Path, kind: str) -> None:
    """BF-096: the token goes to nobody but whom its authority certifies."""
    with running(config_of(tmp_path)) as (service, http):
        token, url = token_of(http), service.endpoint.http
        wrong = {
            "other fleet": token[:-6] + ("AAAAAA" if not token.endswith("AAAAAA") else "BBBBBB"),
            "plain": token,
            "no token": token.split(".")[1],
        }[kind]
        told = url.replace("https:", "http:") if kind == "plain" else url
        with agent(tmp_path, "--aggregator", told, "--device", "pi-1", "--token", wrong) as process:
            said = {
                "other fleet": "this is another fleet, or somebody in between",
                "plain": "expected a URL https://",
                "no token": "join with a token that carries its authority's fingerprint",
            }[kind]
            eventually(lambda: said in (tmp_path / "agent.log").read_text(), said)
            if kind != "no token":
                assert process.wait(20) == 1
        assert not Trust(tmp_path).pinned
        assert http.get("/api/v1/tokens").json()[0]["uses_left"] == 1


def test_what_is_forged_replayed_or_anothers_is_refused_and_counted_for_all_to_see(tmp_path: Path) -> None:
    """BF-003, BF-011, BF-016, BF-019, over a real broker, with a good certificate: let in is not believed."""
    key, other = SigningKey(bytes(32)), SigningKey(bytes(range(32)))
    trust = Trust(tmp_path / "device")
    trust.folder.mkdir()
    config = config_of(tmp_path)
    with running(config) as (service, http), urllib3.PoolManager() as plain:
        secret, authority = split_token(token_of(http))
        trust.pin(service.endpoint.http, authority)
        with trust.connections(plain) as own:
            join(own, service.endpoint.http, device="pi-1", public=key.public, token=secret, trust=trust, key=key)
        url = BrokerUrl.parse(http.get("/api/v1/status").json()["broker"])
        topics = Topics("test")
        tele, state = topics.device("pi-1", "tele"), topics.device("pi-1", "state")
        with MqttClient(url, "pi-1", context=trust.broker("fleet")) as device:

            def say(number: int, *, sender: str = "pi-1", by: SigningKey = key, to: str = tele) -> bytes:
                told = Telemetry("idle", "", 0.0, 0, 0, 0, 0.0)
                data = seal(told, topic=tele, sender=sender, stamp=Stamp(1, number), time_ms=0, key=by)
                device.publish(to, data)
                return data

            device.publish(tele, say(1))
            say(2, by=other)
            say(3, sender="pi-2", by=other)
            say(4, to=state)
            expected = {"replayed": 1, "forged": 2, "foreign-device": 1}
            eventually(lambda: http.get("/api/v1/devices/pi-1").json()["refusals"] == expected, f"{expected}")
    with running(config) as (service, _):
        arguments = ["explain", "pi-1", "--state", str(config.state_dir), "--json"]
        said = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
        assert json.loads(said)["refusals"] == expected, "the command line trusts the authority of the folder"


def test_the_embedded_broker_is_for_loopback_alone(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="install Mosquitto"), running(config_of(tmp_path, broker="embedded")):
        pass


def test_where_an_operator_approves_a_device_waits_for_it(tmp_path: Path) -> None:
    """BF-097; and without TLS, as on loopback."""
    asked = {"device": "pi-1", "public_key": SigningKey(bytes(32)).public.raw.hex()}
    with running(config_of(tmp_path, broker="embedded", tls="off", approve="manual")) as (_, http):
        first = http.post("/api/v1/join", json=asked | {"token": token_of(http)})
        again = http.post("/api/v1/join", json=asked)
        assert (first.status_code, again.status_code) == (202, 202)
        assert [row["device"] for row in http.get("/api/v1/applicants").json()] == ["pi-1"]
        http.post("/api/v1/applicants/pi-1/approve").raise_for_status()
        assert http.post("/api/v1/join", json=asked).status_code == 201
        assert http.get("/api/v1/ca").status_code == 404
