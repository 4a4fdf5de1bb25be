"""Home Assistant finds the devices over a real broker, sees what changes, and loses who is revoked."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mqtt_client import MqttClient, eventually
from programs import needs_mosquitto
from strategies import SMALL
from wire_device import WireDevice

from aggregator.broker import BrokerUrl
from aggregator.config import ConfigError, load
from aggregator.home_assistant import SENSORS
from aggregator.secret_files import admin_token
from aggregator.service import open_service
from protocol.topics import Topics

CONFIG = "homeassistant/device/bitfleet_test_pi-1/config"
STATE = "bitfleet/v1/test/ha/pi-1"


def settings(folder: Path, **changes: Any) -> Any:
    job = {"architecture": SMALL.spec, "rounds": 1, "min_devices": 2}
    standard = {"fleet": "test", "http_port": 0, "broker_port": 0, "broker": "mosquitto", "page": False, "job": job}
    return load(environment={}, overrides=standard | {"state_dir": folder / "state"} | changes)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that tells Home Assistant, and its door."""
    config = settings(tmp_path, home_assistant="homeassistant")
    with open_service(config) as service:
        thread = threading.Thread(target=service.run)
        thread.start()
        headers = {"Authorization": f"Bearer {admin_token(config.state_dir)}"}
        with httpx.Client(base_url=service.endpoint.http, headers=headers, trust_env=False) as client:
            try:
                assert service.link.wait(20)
                yield client
            finally:
                service.stop()
                thread.join()


@needs_mosquitto
def test_a_device_is_found_followed_and_forgotten(http: httpx.Client) -> None:
    device = WireDevice("pi-1", http, Topics("test"))
    device.join(http.post("/api/v1/tokens", json={}).json()["token"])
    device.connect()
    url = BrokerUrl.parse(http.get("/api/v1/status").json()["broker"])
    with MqttClient(url, "home") as home:
        home.subscribe("homeassistant/#", "bitfleet/v1/test/ha/+")

        def state() -> dict[str, Any]:
            told = home.on(STATE)
            return json.loads(told[-1]) if told and told[-1] else {}

        eventually(lambda: state().get("precision"), "its precision")
        found = json.loads(home.on(CONFIG)[-1])
        assert found["device"]["name"] == "pi-1"
        assert found["state_topic"] == STATE
        assert set(found["components"]) == set(state()) == {sensor.key for sensor in SENSORS}
        assert len({part["unique_id"] for part in found["components"].values()}) == len(SENSORS)
        assert state()["state"] == "online"
        assert (state()["energy"], state()["accuracy"]) == (0.0, None)

        device.report("TRAINING", 0.25)
        eventually(lambda: state().get("doing") == "training", "what it does")
        device.mqtt.crash()
        eventually(lambda: state().get("state") == "offline", "its will")
        http.post("/api/v1/devices/pi-1/revoke")
        eventually(lambda: home.on(CONFIG)[-1] == b"" and home.on(STATE)[-1] == b"", "its removal")
    with MqttClient(url, "home-again") as home:
        home.subscribe("homeassistant/#")
        home.publish("homeassistant/end", b"x")
        eventually(lambda: home.on("homeassistant/end"), "the echo")
        assert home.on(CONFIG) == [], "nothing is kept"


@pytest.mark.parametrize("prefix", ["#", "a/+", "/", "home assistant"])
def test_a_prefix_is_a_topic(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(ConfigError, match="home_assistant"):
        settings(tmp_path, home_assistant=prefix)
