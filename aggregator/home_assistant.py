"""Devices of the fleet as devices of Home Assistant, by MQTT discovery, for those who ask for it.

Under the discovery prefix lies one retained message for each device that says which sensors it has; what they show is
one retained JSON object below the fleet's own topics. Both are plain JSON and signed by nobody: whatever listens there
changes nothing here. https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator import readers
from aggregator.changes import Change
from aggregator.room import Room
from aggregator.store import Device, Energy, Export

CALM_S: Final = 1.0
"""Changes within a second are told together: nobody watches a sensor more closely."""
MJ: Final = 1e-3

log = logging.getLogger("bitfleet.aggregator")

Announce = Callable[[str, bytes], object]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor of every device: its key in the state, its name, and what Home Assistant should know of it."""

    key: str
    name: str
    more: dict[str, str]


SENSORS: Final = (
    Sensor("state", "State", {"icon": "mdi:lan-connect"}),
    Sensor("doing", "Doing", {"icon": "mdi:progress-wrench"}),
    Sensor("precision", "Precision", {"icon": "mdi:numeric"}),
    Sensor("model_version", "Model version", {"icon": "mdi:tag"}),
    Sensor("accuracy", "Accuracy", {"unit_of_measurement": "%", "state_class": "measurement"}),
    Sensor(
        "energy",
        "Energy of training",
        {"unit_of_measurement": "J", "device_class": "energy", "state_class": "total_increasing"},
    ),
    Sensor("energy_day", "Energy of training in 24 h", {"unit_of_measurement": "J", "state_class": "measurement"}),
)


class HomeAssistant:
    """Tells Home Assistant of the devices, in a thread of its own, so that rounds never wait for it.

    Args:
        prefix: where Home Assistant looks for devices.
        room: the core; only its store is looked at.
        announce: publishes a retained message; an empty one removes it.
    """

    def __init__(self, prefix: str, room: Room, announce: Announce) -> None:
        self._prefix, self._room, self._announce = prefix, room, announce
        self._due: set[str] = set()
        self._all = False
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Tell what changes for as long as the block runs."""
        thread = threading.Thread(target=self._run, name="home-assistant", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._woken.set()
            thread.join()

    def tell(self, change: Change) -> None:
        """Take a change; from any thread."""
        if change.kind in {"device", "update"}:
            with self._lock:
                self._due.add(change.facts["device"])
            self._woken.set()
        elif change.kind == "model":
            self.everything()

    def everything(self) -> None:
        """Tell of every device anew: the broker may have forgotten them."""
        self._all = True
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait()
            self._stopping.wait(CALM_S)
            self._woken.clear()
            with self._lock:
                due, self._due = self._due, set()
            whole, self._all = self._all, False
            try:
                self._publish_all(None if whole else due)
            except Exception as error:  # noqa: BLE001 (the next change tries again)
                log.error("Home Assistant is not told: %s", error)  # noqa: TRY400 (the sentence says it all)

    def _publish_all(self, due: set[str] | None) -> None:
        with self._room.store.reading() as session:
            meant = select(Device) if due is None else select(Device).where(Device.id.in_(due))
            for device in session.scalars(meant):
                session.enter(device.job)
                self._publish(session, device)

    def _publish(self, session: Session, device: Device) -> None:
        config, state = self.topics(device.id)
        if device.revoked:
            self._announce(config, b"")
            self._announce(state, b"")
            return
        self._announce(config, _json(discovery(self._room.topics.fleet, device, state)))
        self._announce(state, _json(state_of(session, device, self._room.clock())))

    def topics(self, device: str) -> tuple[str, str]:
        """Where a device's discovery message lies, and where its state."""
        name = unique(self._room.topics.fleet, device)
        return f"{self._prefix}/device/{name}/config", f"{self._room.topics.root}/ha/{device}"


def unique(fleet: str, device: str) -> str:
    """A name that no other device of this Home Assistant has."""
    return f"bitfleet_{fleet}_{device}"


def discovery(fleet: str, device: Device, state_topic: str) -> dict[str, Any]:
    """The discovery message of a device: who made it, and its sensors."""
    name = unique(fleet, device.id)
    return {
        "device": {
            "identifiers": [name],
            "name": device.id,
            "manufacturer": "bitfleet",
            "model": device.birth.get("processor", "") or "device",
            "sw_version": device.birth.get("version", "") or "unknown",
        },
        "origin": {"name": "bitfleet"},
        "state_topic": state_topic,
        "components": {
            sensor.key: {
                "platform": "sensor",
                "unique_id": f"{name}_{sensor.key}",
                "name": sensor.name,
                "value_template": f"{{{{ value_json.{sensor.key} }}}}",
                **sensor.more,
            }
            for sensor in SENSORS
        },
    }


def state_of(session: Session, device: Device, now: float) -> dict[str, Any]:
    """What the sensors show; null where nothing is known."""
    version = device.telemetry.get("model_version", 0)
    export = session.get(Export, (version, device.precision))
    spent_mj = session.scalar(select(func.sum(Energy.energy_mj)).where(Energy.device == device.id)) or 0.0
    return {
        "state": device.status,
        "doing": device.telemetry.get("lifecycle", "").lower() or None,
        "precision": device.precision or None,
        "model_version": version or None,
        "accuracy": None if export is None or export.accuracy is None else round(100 * export.accuracy, 2),
        "energy": round(MJ * spent_mj, 3),
        "energy_day": round(MJ * readers.spent_in_a_day_mj(session, device.id, now), 3),
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
