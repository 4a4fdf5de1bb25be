"""Smart plugs over MQTT: Shelly of both generations, and whatever runs Tasmota.

A plug says its power when it changes or every few minutes, which no integral can be made of; so it is asked once a
second, and only an answer that is newer than the question counts. What is asked and where answers come:

| kind | question | answers |
|---|---|---|
| Shelly 1 | `shellies/<id>/command`: `update` | `shellies/<id>/relay/0/power`: watts as text |
| Shelly 2 and later | `<id>/rpc`: Switch.GetStatus | `<me>/rpc`, `<id>/status/switch:0`: JSON with `apower` |
| Tasmota | `cmnd/<topic>/STATUS`: `10` | `stat/<topic>/STATUS10`, `tele/<topic>/SENSOR`: JSON with `ENERGY.Power` |

In it is what the wall gives, with the losses of the power supply and all that hangs on the plug. Makers state 1 %;
below 3 W plugs are worse or say 0, which is refused. A reading is one or two small messages each way and waits for the
answer, commonly 50 to 300 ms.

Sources: shelly-api-docs.shelly.cloud (gen1, MQTT; gen2, Mqtt and Switch); tasmota.github.io/docs (Commands, MQTT).
"""

import json
import secrets
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from edge.meters.base import Accuracy, Description, MeterError
from edge.meters.sampled import PowerMeter
from edge.mqtt import Address

RATE_HZ: Final = 1.0
ANSWER_S: Final = 1.5
CONNECT_S: Final = 2.0
MAX_MW: Final = 4_000_000.0
"""16 A at 250 V, the most that a plug may carry."""
ERROR_PERCENT: Final = 1.0
UNREADABLE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""All that reading a number out of any JSON at all may raise."""
_MW_PER_W: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of plug is spoken to.

    Attributes:
        questions: what to publish: (topic, payload).
        answers: what turns the payload on each topic into watts; raises one of `UNREADABLE` if it cannot.
    """

    questions: tuple[tuple[str, str], ...]
    answers: Mapping[str, Callable[[bytes], float]]


def shelly(plug: str, me: str) -> Dialect:
    """A Shelly by its id, of whichever generation; `me` is the topic where a second generation answers."""
    status = json.dumps({"id": 1, "src": me, "method": "Switch.GetStatus", "params": {"id": 0}})
    return Dialect(
        questions=((f"shellies/{plug}/command", "update"), (f"{plug}/rpc", status)),
        answers={
            f"shellies/{plug}/relay/0/power": float,
            f"{plug}/status/switch:0": lambda data: _number(json.loads(data)["apower"]),
            f"{me}/rpc": lambda data: _number(json.loads(data)["result"]["apower"]),
        },
    )


def tasmota(plug: str, _me: str) -> Dialect:
    """A Tasmota device by its topic, with prefixes as delivered."""
    return Dialect(
        questions=((f"cmnd/{plug}/STATUS", "10"),),
        answers={
            f"stat/{plug}/STATUS10": lambda data: _number(json.loads(data)["StatusSNS"]["ENERGY"]["Power"]),
            f"tele/{plug}/SENSOR": lambda data: _number(json.loads(data)["ENERGY"]["Power"]),
        },
    )


DIALECTS: Final = {"shelly": shelly, "tasmota": tasmota}


def plug(kind: str, argument: str) -> PowerMeter:
    """The meter of `shelly:mqtt://[user:password@]host[:port]/ID` or `tasmota:mqtt://…/TOPIC`.

    Raises:
        ValueError: it is no such URL. The message does not repeat it, since it may hold a password.
    """
    parts = urlsplit(argument)
    topic = parts.path.strip("/")
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or not topic or set(topic) & set("#+"):
        raise ValueError(f"expected {kind}:mqtt://host[:port]/{'ID' if kind == 'shelly' else 'TOPIC'} of the plug")
    return PowerMeter(PlugSensor(kind, topic, argument))


class PlugSensor:
    """One plug.

    Args:
        kind: of `DIALECTS`.
        topic: its name on the broker.
        url: of the broker, with user and password where it wants them.
    """

    max_mw = MAX_MW

    def __init__(self, kind: str, topic: str, url: str) -> None:
        self._address, parts = Address.parse(url), urlsplit(url)
        self._login = unquote(parts.username or ""), unquote(parts.password or "")
        self._me = f"bitfleet-meter-{secrets.token_hex(4)}"
        self._dialect = DIALECTS[kind](topic, self._me)
        includes = f"the wall at plug {topic}, with the losses of the supply and all that hangs on it"
        self.description = Description(kind, Accuracy.WALL, ERROR_PERCENT, RATE_HZ, includes)
        self._name = f"meter {kind}, plug {topic} at {self._address}"
        self._client: Client | None = None
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._said: float | str | None = None

    def open(self) -> None:
        """Connect to the broker and listen.

        Raises:
            MeterError: it does not let us.
            OSError: it is not there.
        """
        client = Client(CallbackAPIVersion.VERSION2, self._me, reconnect_on_failure=False)
        client.connect_timeout = CONNECT_S
        client.on_connect, client.on_subscribe, client.on_message = self._connected, self._subscribed, self._heard
        if self._login[0]:
            client.username_pw_set(*self._login)
        if self._address.tls:
            client.tls_set_context(ssl.create_default_context())
        self._ready.clear()
        client.connect(self._address.host, self._address.port)
        self._client = client
        client.loop_start()
        if not self._ready.wait(CONNECT_S):
            raise MeterError(f"{self._name}: the broker does not let us listen within {CONNECT_S:g} s")

    def read(self) -> float:
        """Milliwatts now.

        Raises:
            MeterError: the plug does not answer, or says no power.
        """
        assert self._client is not None
        with self._news:
            self._said = None
        for topic, payload in self._dialect.questions:
            self._client.publish(topic, payload)
        return self._answer() * _MW_PER_W

    def close(self) -> None:
        """Leave the broker."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _answer(self) -> float:
        """Watts, from the first answer that comes."""
        with self._news:
            self._news.wait_for(lambda: self._said is not None, ANSWER_S)
            said = self._said
        if said is None:
            raise MeterError(f"{self._name}: no answer within {ANSWER_S:g} s; is it on, and MQTT control enabled?")
        if isinstance(said, str):
            raise MeterError(f"{self._name}: {said}")
        return said

    def _connected(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe([(topic, 0) for topic in self._dialect.answers])

    def _subscribed(self, *_: Any) -> None:
        self._ready.set()

    def _heard(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        """Keep what was said; what was retained is from another time."""
        if message.retain:
            return
        try:
            said: float | str = self._dialect.answers[message.topic](bytes(message.payload))
        except UNREADABLE:
            said = f"{message.topic} says {bytes(message.payload[:80])!r}, expected a power in watts"
        with self._news:
            self._said = said
            self._news.notify_all()


def _number(value: Any) -> float:
    """A JSON number as it is; two channels come as a list, and which of them is meant nobody knows."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return float(value)
