"""The whole aggregator: real broker, real HTTP, real disk, and devices on the wire."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto
from strategies import SMALL
from wire_device import WireDevice

from aggregator import ports, state_dir
from aggregator.broker import BrokerUrl
from aggregator.config import Config, ConfigError, load
from aggregator.secret_files import admin_token
from aggregator.service import Service, load_hold_out, next_boot, open_service
from aggregator.state_dir import StateDirError, locked
from aggregator.store import Store, StoreError
from aggregator.versions import JobMismatch
from protocol.envelope import open_envelope
from protocol.messages import RoundState, ServerState
from protocol.signing import VerifyKey
from protocol.topics import Topics

ROOT = Path(__file__).parents[2]
TOPICS = Topics("test")
BROKERS = [
    pytest.param(
        "mosquitto",
        marks=needs_mosquitto,
    ),
    "embedded",
]


def config_of(folder: Path, kind: str = "embedded", **changes: Any) -> Config:
    job = {"architecture": SMALL.spec, "rounds": 1, "recipe": "sign", "min_devices": 2, "deadline_s": 60.0}
    overrides = {
        "state_dir": folder / "state",
        "fleet": "test",
        "http_port": 0,
        "broker": kind,
        "broker_port": 0,
        "keep_free_mb": 0,  # disks here may be small
        "page": False,  # NiceGUI is one application a process; tests/aggregator/page has its own
        "job": job | changes.pop("job", {}),
        **changes,
    }
    return load(environment={}, overrides=overrides)


@contextmanager
def running(config: Config) -> Iterator[tuple[Service, httpx.Client]]:
    """A service whose coordinator works in a thread, and its HTTP door with the administrator's token."""
    with open_service(config) as service:
        thread = threading.Thread(target=service.run)
        thread.start()
        headers = {"Authorization": f"Bearer {admin_token(config.state_dir)}"}
        with httpx.Client(base_url=service.endpoint.http, headers=headers, trust_env=False) as http:
            try:
                assert service.link.wait(20)
                yield service, http
            finally:
                service.stop()
                thread.join()


def devices_of(http: httpx.Client, *names: str) -> list[WireDevice]:
    token = http.post("/api/v1/tokens", json={"uses": len(names)}).json()["token"]
    devices = [WireDevice(name, http, TOPICS) for name in names]
    for device in devices:
        device.join(token)
        device.connect()
    return devices


def round_state(http: httpx.Client) -> str:
    state: str = http.get("/api/v1/status").json()["state"]
    return state


@pytest.mark.parametrize("kind", BROKERS)
def test_two_devices_on_the_wire_train_a_round_and_get_their_models(tmp_path: Path, kind: str) -> None:
    with running(config_of(tmp_path, kind)) as (_, http):
        devices = devices_of(http, "pi-1", "pi-2")
        devices[0].report("TRAINING", 0.25)
        for device in devices:
            device.serve_until(lambda device=device: device.accepted, "a receipt")
            (digest,) = {digest for digest, _ in device.pieces}
            spread = b"".join(device.pieces[digest, number] for number in range(len(device.pieces)))
            assert spread == http.get(f"/api/v1/blobs/{digest.hex()}").content, "BF-034"
        eventually(lambda: round_state(http) == "announced", "the round to end", within_s=60)
        for device in devices:
            device.serve_until(lambda device=device: device.models, "a model")
            model = device.models[-1]
            data = http.get(f"/api/v1/blobs/{model.digest.hex()}").content
            assert (model.version, len(data)) == (1, model.model_bytes)
        live = http.get("/api/v1/status").json()["live"][0]
        assert (live["lifecycle"], live["progress"]) == ("TRAINING", 0.25)
        devices[1].mqtt.crash()
        eventually(lambda: http.get("/api/v1/devices/pi-2").json()["status"] == "offline", "the will")
        devices[0].close()


@contextmanager
def process(config: Config) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """The service as a process of its own, as `serve` runs it; killed when the block ends."""
    folder, job = config.state_dir.parent, config.job
    (folder / "config.toml").write_text(
        f'state_dir = "{config.state_dir}"\nfleet = "test"\nbroker = "{config.broker}"\n'
        "http_port = 0\nbroker_port = 0\npage = false\n"
        f'[job]\narchitecture = "{job.architecture}"\nrounds = 1\nrecipe = "sign"\nmin_devices = 2\ndeadline_s = 60\n'
    )
    command = [sys.executable, "-c", "from aggregator.cli import main; main()", "serve"]
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen([*command, "--config", str(folder / "config.toml")], cwd=ROOT, stderr=log)
    try:
        endpoint = eventually(lambda: ready_endpoint(config.state_dir, child), "the service", within_s=30)
        headers = {"Authorization": f"Bearer {admin_token(config.state_dir)}"}
        with httpx.Client(base_url=endpoint.http, headers=headers, trust_env=False) as http:
            yield child, http
    finally:
        child.kill()
        child.wait()


def ready_endpoint(folder: Path, child: subprocess.Popen[bytes]) -> state_dir.Endpoint | None:
    assert child.poll() is None, (folder.parent / "log").read_text()
    endpoint = state_dir.read_endpoint(folder)
    try:
        ready = endpoint and httpx.get(f"{endpoint.http}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return None
    return endpoint if ready else None


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.chaos
def test_an_aggregator_killed_in_mid_upload_comes_back_where_it_was(tmp_path: Path, kind: str) -> None:
    config = config_of(tmp_path, kind)
    with process(config) as (_, http):
        first, second = devices_of(http, "pi-1", "pi-2")
        second.hold_back.set()
        first.serve_until(lambda: first.accepted, "the first receipt")
        second.serve_until(lambda: second.chunks_sent, "the first chunk")
    before = state_dir.read_endpoint(config.state_dir)
    with process(config) as (_, http):
        assert state_dir.read_endpoint(config.state_dir) == before  # devices find it where it was
        first.http = second.http = http
        second.hold_back.clear()
        eventually(second.mqtt.client.is_connected, "the device to come back")
        second.mqtt.subscribe(*TOPICS.subscriptions_of_device("pi-2"))
        second.resend()
        second.serve_until(lambda: second.accepted, "the second receipt")
        eventually(lambda: round_state(http) == "announced", "the round to end", within_s=60)
        updates = http.get("/api/v1/updates").json()
        assert [(update["device"], update["accepted"]) for update in updates] == [("pi-1", True), ("pi-2", True)]
        first.close()
        second.close()


def test_a_service_that_is_asked_to_stop_says_goodbye_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    with process(config) as (child, _):
        endpoint = state_dir.read_endpoint(config.state_dir)
        assert endpoint
        url = BrokerUrl.parse(endpoint.broker)
        with MqttClient(url, "pi") as pi:
            pi.subscribe(TOPICS.server_state)
            eventually(lambda: pi.on(TOPICS.server_state), "the retained state")
            child.send_signal(signal.SIGINT)
            eventually(lambda: len(pi.on(TOPICS.server_state)) == 2, "the goodbye")
            key = VerifyKey(bytes.fromhex(endpoint.server_key))
            last = open_envelope(pi.on(TOPICS.server_state)[-1], topic=TOPICS.server_state, key_of=lambda _: key)
        assert last.message == ServerState(False, "test")
        assert child.wait(20) == 0
    ports.claim("127.0.0.1", url.port, what="the test", change="")
    with locked(config.state_dir):
        pass


def test_rubbish_on_every_topic_stops_nothing(tmp_path: Path) -> None:
    with running(config_of(tmp_path)) as (service, http):
        url = BrokerUrl.parse(service.endpoint.broker)
        with MqttClient(url, "stranger") as stranger:
            for topic in (
                TOPICS.device("pi", "birth"),
                TOPICS.device("BAD", "state"),
                TOPICS.manifest("0", "pi", "t"),
                TOPICS.chunk("0", "pi", "t", 3),
                f"{TOPICS.root}/up/0/x",
                f"{TOPICS.root}/up/0/pi/t/c/999999999",
            ):
                for data in (b"", b"x", os.urandom(500), bytes(65536)):
                    stranger.publish(topic, data)
        assert http.get("/readyz").json()["ready"]
        assert http.get("/api/v1/devices").json() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes more rights than this user has")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_holds_the_round_up_and_loses_nothing(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filler = small_disk / "filler"
    with running(config_of(small_disk)) as (_, http):
        one, two = devices_of(http, "pi-1", "pi-2")
        one.serve_until(lambda: one.accepted, "the first receipt")
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        two.serve()
        eventually(lambda: "is full; make room" in caplog.text, "a word about the disk")
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").json() == {"ready": False, "broker": True, "database": False}
        assert not two.accepted
        filler.unlink()

        def insist() -> list[Any]:
            two.resend()
            two.serve()
            return list(two.accepted)

        eventually(insist, "the second receipt", within_s=60)
        eventually(lambda: round_state(http) == "announced", "the round to end", within_s=60)
        updates = http.get("/api/v1/updates").json()
        assert [(update["device"], update["accepted"]) for update in updates] == [("pi-1", True), ("pi-2", True)]
        one.close()
        two.close()


def test_no_secret_can_be_read_by_others_and_nothing_listens_outside(tmp_path: Path) -> None:
    previous = os.umask(0)  # the worst
    try:
        with running(config_of(tmp_path)) as (service, _):
            folder = tmp_path / "state"
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for name in ("server-key", "admin-token"):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
            secret, key = (folder / "admin-token").read_bytes(), (folder / "server-key").read_bytes()
            for path in folder.rglob("*"):
                if path.is_file() and path.name not in {"server-key", "admin-token"}:
                    assert secret not in path.read_bytes(), path
                    assert key not in path.read_bytes(), path
            assert service.endpoint.http.startswith("http://127.0.0.1:")
            assert service.endpoint.broker.startswith("mqtt://127.0.0.1:")
    finally:
        os.umask(previous)


def test_a_second_aggregator_on_the_same_folder_is_turned_away(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "state"),
        pytest.raises(StateDirError, match=rf"in use by process {os.getpid()}.*--state"),
        open_service(config_of(tmp_path)),
    ):
        pass


def test_a_port_in_use_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with (
            pytest.raises(ports.PortError, match=rf"port {port} .*HTTP is in use by .*--port"),
            open_service(config_of(tmp_path, http_port=port)),
        ):
            pass
    with locked(tmp_path / "state"):
        pass  # the folder was given back


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "bitfleet.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match=r"bitfleet.db"), open_service(config_of(tmp_path)):
        pass


def test_a_folder_of_another_job_is_named(tmp_path: Path) -> None:
    with open_service(config_of(tmp_path)):
        pass
    other = SMALL.spec.replace("classes=", "classes=1")
    with pytest.raises(JobMismatch), open_service(config_of(tmp_path, job={"architecture": other})):
        pass


def test_the_boot_counter_rises_with_every_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    assert [next_boot(store) for _ in range(3)] == [1, 2, 3]
    store.close()


@pytest.mark.parametrize("kind", BROKERS)
def test_the_state_of_the_round_is_retained_again_after_the_broker_was_killed(tmp_path: Path, kind: str) -> None:
    with running(config_of(tmp_path, kind)) as (service, http):
        for device in devices_of(http, "pi-1", "pi-2"):
            device.close()
        url = BrokerUrl.parse(service.endpoint.broker)
        eventually(lambda: round_state(http) == "collecting", "a round")
        os.kill(int(ports.holder(url.port).partition("process ")[2].rstrip(")")), signal.SIGKILL)
        eventually(lambda: not service.link.connected, "the link to break")
        assert service.link.wait(30)
        with MqttClient(url, "late") as late:
            late.subscribe(TOPICS.round_state())
            data = eventually(lambda: late.on(TOPICS.round_state()), "the retained round")[-1]
    key = VerifyKey(bytes.fromhex(service.endpoint.server_key))
    assert open_envelope(data, topic=TOPICS.round_state(), key_of=lambda _: key).message == RoundState(
        1, "collecting", 0
    )


def test_a_hold_out_has_pictures_and_perhaps_labels(tmp_path: Path) -> None:
    pictures = np.zeros((3, 1, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", pictures=pictures, labels=np.array([1, 2, 3], np.int32))
    np.savez(tmp_path / "b.npz", pictures=pictures)
    labels = load_hold_out(tmp_path / "a.npz").labels_N
    assert labels is not None
    assert labels.dtype == np.int64
    assert load_hold_out(tmp_path / "b.npz").labels_N is None


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({}, r"pictures are none, expected uint8\[N, C, H, W\]"),
        ({"pictures": np.zeros((3, 8, 8), np.uint8)}, r"pictures are uint8\[3, 8, 8\]"),
        ({"pictures": np.zeros((3, 1, 8, 8), np.float32)}, r"pictures are float32"),
        ({"pictures": np.zeros((0, 1, 8, 8), np.uint8)}, r"with N above 0"),
        ({"pictures": np.zeros((3, 1, 8, 8), np.uint8), "labels": np.zeros(2, int)}, r"labels are int64\[2\].*\[3\]"),
        ({"pictures": np.array([{}], dtype=object)}, r"not a readable .npz"),
    ],
)
def test_a_wrong_hold_out_is_named(tmp_path: Path, arrays: dict[str, Any], complaint: str) -> None:
    np.savez(tmp_path / "h.npz", allow_pickle=True, **arrays)
    with pytest.raises(ConfigError, match=complaint):
        load_hold_out(tmp_path / "h.npz")


def test_a_hold_out_that_is_no_archive_or_absent_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.npz").write_bytes(b"PK\3\4 nothing")
    for name in ("h.npz", "none.npz"):
        with pytest.raises(ConfigError, match=name):
            load_hold_out(tmp_path / name)
