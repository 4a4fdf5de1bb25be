"""Plugs on a real Mosquitto: programs that answer as Shelly and Tasmota do, and all the ways in which they do not."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from edge_support import HOST, broker
from hypothesis import example, given
from hypothesis import strategies as st
from meter_contract import MeterContract, Rig
from mqtt_client import MqttClient

from aggregator import ports
from aggregator.broker import BrokerUrl, open_broker
from edge.meters import plug as module
from edge.meters.base import Accuracy, MeterError
from edge.meters.plug import plug

ID = "shelly-a1b2c3"


class Plug:
    """Answers questions on the broker with `watts`, while `on`."""

    def __init__(self, mqtt: MqttClient, questions: str, answer: Callable[[bytes, float], tuple[str, object]]) -> None:
        self.on, self.watts = True, 4.5
        self.payload: bytes | None = None
        self._mqtt, self._answer = mqtt, answer
        mqtt.client.on_message = self._asked
        mqtt.subscribe(questions)

    def _asked(self, _client: Any, _data: Any, message: Any) -> None:
        if self.on:
            topic, said = self._answer(message.payload, self.watts)
            payload = said if isinstance(said, str | bytes) else json.dumps(said)
            self._mqtt.client.publish(topic, self.payload if self.payload is not None else payload)


def shelly_1(payload: bytes, watts: float) -> tuple[str, object]:
    assert payload == b"update"
    return f"shellies/{ID}/relay/0/power", f"{watts:.2f}"


def shelly_2(payload: bytes, watts: float) -> tuple[str, object]:
    question = json.loads(payload)
    assert question["method"] == "Switch.GetStatus"
    result = {"id": 0, "output": True, "apower": watts, "voltage": 231.2, "aenergy": {"total": 12.3}}
    return f"{question['src']}/rpc", {"id": question["id"], "src": ID, "dst": question["src"], "result": result}


def shelly_2_status(_payload: bytes, watts: float) -> tuple[str, object]:
    return f"{ID}/status/switch:0", {"id": 0, "apower": watts}


def tasmota(payload: bytes, watts: float) -> tuple[str, object]:
    assert payload == b"10"
    energy = {"Total": 1.2, "Power": watts, "ApparentPower": 9, "Voltage": 230, "Current": 0.04}
    return f"stat/{ID}/STATUS10", {"StatusSNS": {"Time": "2026-01-01T00:00:00", "ENERGY": energy}}


def tasmota_sensor(_payload: bytes, watts: float) -> tuple[str, object]:
    return f"tele/{ID}/SENSOR", {"Time": "2026-01-01T00:00:00", "ENERGY": {"Power": watts}}


KINDS = {
    "shelly 1": ("shelly", f"shellies/{ID}/command", shelly_1),
    "shelly 2": ("shelly", f"{ID}/rpc", shelly_2),
    "shelly 2, status": ("shelly", f"{ID}/rpc", shelly_2_status),
    "tasmota": ("tasmota", f"cmnd/{ID}/STATUS", tasmota),
    "tasmota, sensor": ("tasmota", f"cmnd/{ID}/STATUS", tasmota_sensor),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerUrl]:
    with broker("auto", tmp_path_factory.mktemp("broker")) as url:
        yield url


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.8)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def device(url: BrokerUrl, kind: str, quick: None) -> Iterator[Plug]:
    _, questions, answer = KINDS[kind]
    with MqttClient(url, "plug") as mqtt:
        yield Plug(mqtt, questions, answer)


@pytest.fixture
def make(url: BrokerUrl, kind: str) -> Callable[[], Any]:
    return lambda: plug(KINDS[kind][0], f"mqtt://{url.host}:{url.port}/{ID}")


class TestContract(MeterContract):
    @pytest.fixture
    def rig(self, device: Plug, make: Callable[[], Any]) -> Rig:
        return Rig(make, lambda: setattr(device, "on", False), lambda: setattr(device, "on", True))


def test_watts_are_what_the_plug_says(device: Plug, make: Callable[[], Any]):
    sensor = make().sensor
    assert sensor.description.accuracy is Accuracy.WALL
    sensor.open()
    try:
        device.watts = 6.25
        assert sensor.read() == 6250.0
    finally:
        sensor.close()


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"nan", b"-3", b"0", b"[1]", b"1e9", b'{"ENERGY": {"Power": [1, 2]}}', b"\xff\xfe"]
)
def test_nonsense_is_an_error_and_never_energy(device: Plug, make: Callable[[], Any], payload: bytes):
    with make() as meter:
        device.payload = payload
        with pytest.raises(MeterError, match=r"meter (shelly|tasmota).*expected"):
            meter.read()
        device.payload = None
        assert meter.read().holes == 1


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["apower", "result", "StatusSNS", "ENERGY", "Power"]), inner, max_size=3)
    ),
)


@given(st.binary(max_size=60) | ANY_JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"apower": 1' + b"0" * 400 + b"}")
def test_any_bytes_are_a_number_or_unreadable(payload: bytes):
    for dialect in (module.shelly("id", "me"), module.tasmota("id", "me")):
        for answer in dialect.answers.values():
            with suppress(*module.UNREADABLE):
                assert isinstance(answer(payload), float)


def test_a_silent_plug_is_named_with_its_broker(device: Plug, make: Callable[[], Any], url: BrokerUrl):
    device.on = False
    with pytest.raises(MeterError, match=rf"plug {ID} at {url.host}:{url.port}: no answer within 0.8 s"):
        make().read()


def test_what_was_retained_is_from_another_time(url: BrokerUrl, quick: None):
    with MqttClient(url, "past") as mqtt:
        topic = f"shellies/{ID}/relay/0/power"
        mqtt.publish(topic, b"99.0", retain=True)
        try:
            with pytest.raises(MeterError, match="no answer"):
                plug("shelly", f"mqtt://{url.host}:{url.port}/{ID}").read()
        finally:
            mqtt.publish(topic, b"", retain=True)


def test_a_broker_that_is_not_there_is_an_error():
    with pytest.raises(MeterError, match=r"meter tasmota: .*(refused|reach)"):
        plug("tasmota", "mqtt://127.0.0.1:1/plug").read()


def test_it_finds_a_broker_that_was_started_again(tmp_path: Path, quick: None):
    port = ports.free_port(HOST)

    @contextmanager
    def at_home() -> Iterator[None]:
        with (
            open_broker("auto", host=HOST, port=port, folder=tmp_path, report=lambda _: None) as url,
            MqttClient(url, "plug") as mqtt,
        ):
            Plug(mqtt, f"cmnd/{ID}/STATUS", tasmota)
            yield

    meter = plug("tasmota", f"mqtt://{HOST}:{port}/{ID}")
    try:
        with at_home():
            meter.read()
        with pytest.raises(MeterError):
            meter.read()
        with at_home():
            assert meter.read().holes == 1
    finally:
        meter.sensor.close()


@pytest.mark.parametrize("argument", ["", "http://h/x", "mqtt://h", "mqtt:///x", "mqtt://h/#", "mqtt://u:secret@h"])
def test_a_wrong_setting_says_what_was_expected_and_no_password(argument: str):
    with pytest.raises(ValueError, match=r"expected shelly:mqtt://host\[:port\]/ID") as caught:
        plug("shelly", argument)
    assert "secret" not in str(caught.value)
