"""What really goes over a real broker between a real aggregator and real agents, seen by a third party."""

from pathlib import Path

import pytest
from federation import Federation
from fleet import TOPICS, Fleet
from mqtt_client import MqttClient
from paho.mqtt.client import MQTTMessage
from programs import needs

from aggregator import handlers
from aggregator.broker import BrokerUrl
from protocol.chunks import DEFAULT_CHUNK_BYTES
from protocol.envelope import Stamp, seal
from protocol.messages import State, Status
from protocol.topics import Topics

ROOT = "bitfleet/v1/chaos"


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[MQTTMessage], list[MQTTMessage]]:
    """Every message of a federation of two rounds, and what the broker retains after it."""
    needs("mosquitto")
    with Federation(tmp_path_factory.mktemp("wire"), 2, "mosquitto") as federation:
        url = BrokerUrl.parse(federation.get("/status")["broker"])
        with MqttClient(url, "listener") as listener:
            listener.client.subscribe("#", 2)  # the broker then delivers each message with the QoS it was sent with
            federation.finish()
            said = list(listener.received)
        with MqttClient(url, "latecomer") as latecomer:
            latecomer.subscribe("#")
            federation.until("announced", 2)
            retained = [message for message in latecomer.received if message.retain]
    return said, retained


def test_quality_of_service_is_one_for_what_matters_and_zero_for_telemetry(
    heard: tuple[list[MQTTMessage], list[MQTTMessage]],
) -> None:
    """BF-004."""
    said, _ = heard
    may_be_lost = {True: set[int](), False: set[int]()}
    for message in said:
        lossy = message.topic.endswith("/tele") or message.topic.startswith(f"{ROOT}/model/")
        may_be_lost[lossy].add(message.qos)
    assert may_be_lost == {True: {0}, False: {1}}
    assert any(message.topic.startswith(f"{ROOT}/model/") for message in said), "BF-034"


def test_only_small_state_is_retained(heard: tuple[list[MQTTMessage], list[MQTTMessage]]) -> None:
    """BF-004."""
    _, retained = heard
    expected = {f"{ROOT}/srv/state", f"{ROOT}/srv/round"}
    expected |= {f"{ROOT}/d/pi-{number}/{leaf}" for number in (0, 1) for leaf in ("state", "birth")}
    assert {message.topic for message in retained} == expected
    assert max(len(message.payload) for message in retained) < 1024


def test_chunks_are_never_larger_than_agreed(heard: tuple[list[MQTTMessage], list[MQTTMessage]]) -> None:
    """BF-031, and BF-002: nothing is said on a topic that is not in the list."""
    said, _ = heard
    chunks = [message for message in said if "/c/" in message.topic]
    assert chunks
    assert max(len(message.payload) for message in chunks) <= DEFAULT_CHUNK_BYTES
    topics = Topics("chaos")
    for message in said:
        from_above = message.topic.startswith(f"{ROOT}/srv/") or message.topic.split("/")[5] in {"offer", "rx"}
        if topics.parse_model(message.topic) is None and not from_above:
            topics.parse_upward(message.topic)


@pytest.mark.parametrize("time_ms", [0, (1 << 62) - 1])
def test_a_devices_clock_decides_nothing(tmp_path: Path, time_ms: int) -> None:
    """BF-018: a Raspberry Pi wakes in 1970, another one is far ahead; both are heard."""
    fleet = Fleet(tmp_path)
    (device,) = fleet.join("pi-07")
    device.session = 1
    device.say_birth()
    topic = TOPICS.device("pi-07", "state")
    state = State(Status.ONLINE, device.session)
    data = seal(state, topic=topic, sender="pi-07", stamp=Stamp(2, 1), time_ms=time_ms, key=device.key)
    handlers.on_message(fleet.room, topic, data)
    assert (fleet.device("pi-07").status, fleet.refusals()) == ("online", {})
    fleet.room.store.close()
