"""A whole agent, with real broker, HTTP, trainer, runtime and disk; only the aggregator is written by hand.

It runs on a thread here; `test_cli.py` has it as a process of its own.
"""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import urllib3
from edge_support import DEVICE, NETWORK, SPEC, TOPICS, HandAggregator, Hasty, broker, export, write_digits
from mqtt_client import eventually
from pi5 import install

from aggregator.broker import BrokerUrl
from edge.agent import Agent
from edge.assembly import assembled, open_journal
from edge.config import Config, QuietHours
from edge.courier import Revoked
from edge.lifecycle import Lifecycle
from edge.measure.history import Entry, remember
from edge.membership import device_key
from edge.outbox import Outbox
from edge.provision import Provisioner
from edge.residual import Residuals
from edge.runtime import Runtime
from protocol.chunks import DEFAULT_CHUNK_BYTES, chunk_at, to_bitmap
from protocol.codec.payload import Content, Header, encode
from protocol.initial import initial_tensors
from protocol.messages import Birth, Decline, DeclineReason, EnergySource, Manifest, Outcome, State, Status, Telemetry
from protocol.precision import Precision
from protocol.signing import SigningKey

pytestmark = pytest.mark.long

ROUND_TRIP = [
    Lifecycle.DOWNLOADING,
    Lifecycle.TRAINING,
    Lifecycle.ENCODING,
    Lifecycle.UPLOADING,
    Lifecycle.AWAIT_RECEIPT,
    Lifecycle.IDLE,
]


class Killed(BaseException):
    """The process is gone: nothing after this line happens."""


@dataclass
class Device:
    """A device's folder, and how to start an agent on it."""

    folder: Path
    hand: HandAggregator
    states: list[Lifecycle] = field(default_factory=list)
    die_at: Lifecycle | None = None
    ended: list[BaseException] = field(default_factory=list)

    @property
    def config(self) -> Config:
        return Config(state_dir=self.folder, device=DEVICE, aggregator=self.hand.url, data=self.folder / "digits.npz")

    @contextmanager
    def running(self, config: Config | None = None) -> Iterator[Agent]:
        """An agent at work for the length of the block."""
        agents: list[Agent] = []
        thread = threading.Thread(target=self._run, args=(config or self.config, agents))
        thread.start()
        eventually(lambda: agents, "the agent")
        try:
            yield agents[0]
        finally:
            agents[0].stop()
            thread.join()

    def _run(self, config: Config, agents: list[Agent]) -> None:
        journal = open_journal(config, self._on_state)
        with urllib3.PoolManager() as http:
            key = device_key(self.folder)
            membership = Provisioner(config, journal, key, http, lambda _: False).membership()
            assert membership is not None
            with assembled(config, membership, journal, http) as parts:
                agents.append(Agent(parts, rng=Hasty()))
                try:
                    agents[0].run()
                except (Killed, Revoked) as error:
                    self.ended.append(error)

    def _on_state(self, state: Lifecycle) -> None:
        self.states.append(state)
        if state is self.die_at:
            raise Killed

    def until(self, *states: Lifecycle) -> None:
        """Wait until these states have been passed, in this order and last."""
        eventually(lambda: self.states[-len(states) :] == list(states), f"{states}, not {self.states}", within_s=60)

    def pending(self) -> list[str]:
        return [entry.task for entry in Outbox(self.folder / "outbox", 1 << 30).pending()]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[BrokerUrl]:
    with broker("auto", tmp_path / "broker") as url:
        yield url


@pytest.fixture
def hand(url: BrokerUrl) -> Iterator[HandAggregator]:
    with HandAggregator.running(url) as hand:
        hand.say_state(online=True)
        yield hand


@pytest.fixture
def device(tmp_path: Path, hand: HandAggregator) -> Device:
    return fresh(tmp_path / "device", hand)


def fresh(folder: Path, hand: HandAggregator) -> Device:
    """A device with pictures and a token."""
    folder.mkdir()
    write_digits(folder / "digits.npz")
    (folder / "token").write_text("secret")
    return Device(folder, hand)


def test_a_round_from_offer_to_receipt_and_the_model_after_it(device: Device, hand: HandAggregator) -> None:
    with device.running():
        birth = hand.wait_for(Birth)
        assert birth.trains
        assert birth.samples == 60
        assert birth.model_digest == b""
        offer = hand.offer()
        manifest, payload = hand.take_upload()
        assert (manifest.task, manifest.nonce, manifest.base) == (offer.task, offer.nonce, offer.base)
        assert payload.header.content is Content.DELTA
        assert payload.header.pictures == manifest.samples
        assert manifest.energy_mj > 0
        device.until(*ROUND_TRIP[:-1])
        assert device.pending() == [offer.task]
        hand.receipt(manifest)
        device.until(*ROUND_TRIP)
        assert device.pending() == []
        residual = Residuals(device.folder / "residuals").load(SPEC, 2)
        assert any(np.abs(values).max() > 0 for values in residual.values())
        model_offer = hand.offer_model(export(), 1)
        birth = hand.wait_for(Birth, lambda birth: birth.model_digest == model_offer.digest)
        assert [cost.precision for cost in birth.costs] == ["W8A8"]
        told = hand.wait_for(Telemetry, lambda said: said.model_version == 1)
        assert told.sent_bytes > manifest.payload_bytes
    assert Runtime.restore(device.folder / "models")[0].current is not None
    hand.wait_for(State, lambda state: state.status is Status.OFFLINE)


def test_the_birth_carries_what_was_measured_with_this_network(device: Device, hand: HandAggregator) -> None:
    """The device was measured by hand with the fleet's network, at the precision that it is about to be given."""
    measured = Entry("2026-01-01T00:00:00+00:00", SPEC, "W8A8", 123.0, 45.0, EnergySource.MEASURED)
    remember(device.folder, [measured, replace(measured, precision="W1A8", architecture="cnn4")])
    with device.running():
        model_offer = hand.offer_model(export(), 1)
        birth = hand.wait_for(Birth, lambda birth: birth.model_digest == model_offer.digest)
    assert birth.costs == (measured.cost,)


def base_of(seed: int) -> bytes:
    """A base model that only a test has."""
    tensors = initial_tensors(NETWORK, Precision.parse("W8A8"), seed)
    return encode(Header(SPEC, "fp32", "W8A8", Content.WEIGHTS, 0), tensors, np.random.default_rng(0))


def play_round(device: Device, hand: HandAggregator) -> None:
    """The first round; from then on the device listens to the broadcasts of W8A8."""
    hand.wait_for(Birth)
    hand.offer()
    manifest, _ = hand.take_upload()
    hand.receipt(manifest)
    device.until(*ROUND_TRIP)


def spread(hand: HandAggregator, data: bytes, *numbers: int) -> None:
    """Publish pieces of a blob."""
    for number in numbers:
        topic = TOPICS.model("W8A8", sha256(data).digest(), number)
        hand.mqtt.publish(topic, chunk_at(data, DEFAULT_CHUNK_BYTES, number), qos=0)


def test_a_base_that_is_broadcast_need_not_be_downloaded(device: Device, hand: HandAggregator) -> None:
    """BF-034: nobody else has it. The subscription outlives a restart, and pieces may come before the offer."""
    with device.running():
        play_round(device, hand)
        base = base_of(1)
        hand.offer("task-2", 2, base=sha256(base).digest(), base_bytes=len(base), broadcast=True)
        spread(hand, base, 2, 0, 1)
        manifest, _ = hand.take_upload()
        hand.receipt(manifest)
        device.until(*ROUND_TRIP)
    with device.running():
        hand.wait_for(Birth)
        base = base_of(2)
        spread(hand, base, 0, 1, 2)
        hand.offer("task-3", 3, base=sha256(base).digest(), base_bytes=len(base), broadcast=True)
        assert hand.take_upload()[0].task == "task-3"


def test_what_a_broadcast_loses_or_spoils_is_downloaded(device: Device, hand: HandAggregator) -> None:
    """BF-034: a piece is missing, then one is another's."""
    with device.running():
        play_round(device, hand)
        for round_, spoil in ((2, b""), (3, bytes(DEFAULT_CHUNK_BYTES))):
            base = base_of(round_)
            hand.offer(f"task-{round_}", round_, base=hand.keep(base), base_bytes=len(base), broadcast=True)
            spread(hand, base, 0, 2)
            if spoil:
                hand.mqtt.publish(TOPICS.model("W8A8", sha256(base).digest(), 1), spoil, qos=0)
            manifest, _ = hand.take_upload()
            assert manifest.task == f"task-{round_}"
            hand.receipt(manifest)
            device.until(*ROUND_TRIP)


def test_receipts_that_are_forged_or_for_another_payload_are_ignored(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer()
        manifest, _ = hand.take_upload()
        hand.receipt(manifest, digest=bytes(32))
        hand.receipt(manifest, key=SigningKey.generate())
        again = hand.wait_for(Manifest)
        assert again.digest == manifest.digest
        assert device.pending() == [manifest.task]
        hand.receipt(manifest)
        device.until(Lifecycle.IDLE)
        assert device.pending() == []


def test_a_refused_update_leaves_outbox_and_residual(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer()
        manifest, _ = hand.take_upload()
        hand.receipt(manifest, Outcome.REFUSED, refusal="norm", reason="too far")
        device.until(Lifecycle.IDLE)
        assert device.pending() == []
        assert Residuals(device.folder / "residuals").load(SPEC, 2) == {}


def test_only_the_missing_chunks_are_sent_again(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer(recipe="fp32")
        manifest, _ = hand.take_upload()
        assert len(hand.chunks) == 3
        device.until(Lifecycle.AWAIT_RECEIPT)
        hand.chunks.clear()
        hand.need(manifest, to_bitmap([1], 3))
        eventually(lambda: (hand.listen(), hand.chunks == [1])[1], "the hole to be filled")
        device.until(Lifecycle.UPLOADING, Lifecycle.AWAIT_RECEIPT)
        hand.receipt(manifest)
        device.until(Lifecycle.IDLE)


def test_uploads_are_held_while_the_aggregator_is_offline(device: Device, hand: HandAggregator) -> None:
    hand.say_state(online=False)
    with device.running():
        hand.wait_for(Birth)
        hand.offer()
        device.until(Lifecycle.UPLOADING)
        with pytest.raises(AssertionError, match="in vain"):
            eventually(lambda: (hand.listen(), any(isinstance(m, Manifest) for _, m in hand.heard))[1], "none", 1.5)
        hand.say_state(online=True)
        manifest, _ = hand.take_upload()
        hand.receipt(manifest)
        device.until(Lifecycle.IDLE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The digest of the update when nothing happens to the device."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with broker("auto", folder / "broker") as url, HandAggregator.running(url) as hand:
        device = fresh(folder / "device", hand)
        with device.running():
            hand.wait_for(Birth)
            hand.offer()
            manifest, _ = hand.take_upload()
    digest: bytes = manifest.digest
    return digest


@pytest.mark.parametrize("state", ROUND_TRIP[:-1])
def test_killed_in_any_state_it_delivers_the_same_bytes_once(
    device: Device, hand: HandAggregator, undisturbed: bytes, state: Lifecycle
) -> None:
    device.die_at = state
    with device.running():
        hand.wait_for(Birth)
        offer = hand.offer()
        if state is Lifecycle.AWAIT_RECEIPT:
            hand.take_upload()
        eventually(lambda: device.ended, f"death at {state}", within_s=60)
    device.die_at = None
    trained_before = device.states.count(Lifecycle.TRAINING)
    uploaded = state in {Lifecycle.UPLOADING, Lifecycle.AWAIT_RECEIPT}
    assert device.pending() == ([offer.task] if uploaded else [])
    hand.say_round(9, "announced", "night")  # BF-090: another job's rounds say nothing of this task
    hand.say_round(1, "collecting")
    with device.running():
        manifest, _ = hand.take_upload()
        assert manifest.task == offer.task
        hand.receipt(manifest)
        device.until(Lifecycle.IDLE)
        assert device.states.count(Lifecycle.TRAINING) == trained_before + (not uploaded)
    assert manifest.digest == undisturbed


def test_a_task_from_before_a_restart_is_dropped_when_its_round_is_over(device: Device, hand: HandAggregator) -> None:
    device.die_at = Lifecycle.TRAINING
    with device.running():
        hand.wait_for(Birth)
        hand.offer()
        eventually(lambda: device.ended, "death", within_s=60)
    device.die_at = None
    device.states.clear()
    hand.say_round(2, "offered")
    with device.running():
        hand.wait_for(Birth)
        hand.offer("task-2", 2)
        manifest, _ = hand.take_upload()
        assert manifest.task == "task-2"
        hand.receipt(manifest)
        device.until(*ROUND_TRIP)
    assert device.states == ROUND_TRIP


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "vgg:width=1"}, DeclineReason.UNSUPPORTED),
        ({"precision": "W7A8"}, DeclineReason.UNSUPPORTED),
        ({"recipe": "zip"}, DeclineReason.UNSUPPORTED),
        ({"base": bytes(32)}, DeclineReason.DOWNLOAD_FAILED),
        ({"architecture": SPEC.replace("0.0625", "0.125")}, DeclineReason.UNSUPPORTED),
        ({"base_bytes": 1 << 30}, DeclineReason.DOWNLOAD_FAILED),
        ({"table": bytes(32)}, DeclineReason.UNSUPPORTED),
    ],
    ids=["architecture", "precision", "recipe", "no base", "base of another network", "base size", "table"],
)
def test_an_offer_it_cannot_do_is_declined_with_the_reason(
    device: Device, hand: HandAggregator, changes: dict[str, object], reason: DeclineReason
) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer("task-1", **changes)
        decline = hand.wait_for(Decline)
        assert (decline.task, decline.reason) == ("task-1", reason)
        assert decline.detail
        hand.offer("task-2")
        manifest, _ = hand.take_upload()
        assert manifest.task == "task-2"
        hand.receipt(manifest)
        device.until(Lifecycle.IDLE)


def test_a_full_disk_holds_work_up_and_loses_nothing(tmp_path: Path, hand: HandAggregator) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes more rights than this user has")
    try:
        device = fresh(folder / "device", hand)
        with device.running():
            hand.wait_for(Birth)
            filler = folder / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            hand.offer("task-1")
            time.sleep(1.0)
            assert Lifecycle.TRAINING not in device.states
            filler.unlink()
            hand.offer("task-1")
            manifest, _ = hand.take_upload()
            hand.receipt(manifest)
            device.until(*ROUND_TRIP)
        assert device.ended == []
        assert device.states.count(Lifecycle.TRAINING) == 1
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_second_offer_is_declined_while_at_work_and_the_same_one_is_not(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer("task-1", epochs=30)
        device.until(Lifecycle.TRAINING)
        hand.offer("task-1", epochs=30)
        hand.offer("task-2")
        decline = hand.wait_for(Decline)
        assert (decline.task, decline.reason) == ("task-2", DeclineReason.BUSY)
        manifest, _ = hand.take_upload()
        assert manifest.task == "task-1"
        hand.receipt(manifest)
        device.until(*ROUND_TRIP)
        assert device.states.count(Lifecycle.TRAINING) == 1


def test_in_quiet_hours_it_sleeps_and_says_so(device: Device, hand: HandAggregator) -> None:
    settings = device.config
    always = Config(
        state_dir=settings.state_dir,
        device=DEVICE,
        aggregator=hand.url,
        data=settings.data,
        quiet_hours=QuietHours.parse("00:00-23:59"),
    )
    with device.running(always):
        hand.wait_for(State, lambda state: state.status is Status.SLEEPING)
        hand.offer()
        decline = hand.wait_for(Decline)
        assert decline.reason is DeclineReason.SLEEPING
        assert device.states[-1] is Lifecycle.SLEEPING


def test_a_revoked_device_stops(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer()
        manifest, _ = hand.take_upload()
        hand.receipt(manifest, Outcome.REFUSED, refusal="revoked", reason="by the operator")
        eventually(lambda: device.ended, "the end")
        assert device.states[-1] is Lifecycle.REVOKED
        assert isinstance(device.ended[0], Revoked)


def test_a_model_that_does_not_load_is_not_used_and_the_next_one_is(device: Device, hand: HandAggregator) -> None:
    with device.running():
        hand.wait_for(Birth)
        hand.offer_model(b"no model", 1)
        note = hand.wait_for(Telemetry, lambda said: "refuses the model" in said.note)
        assert note.model_version == 0
        offer = hand.offer_model(export(precision="W1A8"), 2, "W1A8")
        birth = hand.wait_for(Birth, lambda birth: birth.model_digest == offer.digest)
        assert [cost.precision for cost in birth.costs] == ["W1A8"]


def test_without_pictures_it_is_a_member_that_infers_only(device: Device, hand: HandAggregator) -> None:
    (device.folder / "digits.npz").write_bytes(b"no archive")
    with device.running():
        birth = hand.wait_for(Birth)
        assert not birth.trains
        assert birth.samples == 0


def test_a_meter_is_named_at_birth_and_what_it_saw_is_called_measured(
    device: Device, hand: HandAggregator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    with device.running(replace(device.config, meter="raspberry")):
        assert hand.wait_for(Birth).meters == ("raspberry",)
        hand.offer()
        manifest, _ = hand.take_upload()
        assert manifest.energy_source is EnergySource.MEASURED
        assert manifest.energy_mj >= 0.9 * 3143.0 * manifest.train_s, "starting the trainer is in it as well"
        hand.receipt(manifest)
        hand.offer_model(export(), 1)
        (cost,) = hand.wait_for(Birth, lambda birth: birth.costs).costs
        assert cost.source is EnergySource.MEASURED


def test_a_meter_that_vanishes_during_training_is_modelled_and_somebody_hears_of_it(
    device: Device,
    hand: HandAggregator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = install(tmp_path, monkeypatch)
    with device.running(replace(device.config, meter="raspberry")):
        hand.offer()
        device.until(Lifecycle.TRAINING)
        said.unlink()
        manifest, _ = hand.take_upload()
        assert manifest.energy_source is EnergySource.MODELLED
        note = hand.wait_for(Telemetry, lambda telemetry: telemetry.note).note
    assert "energy is modelled: meter raspberry: vcgencmd pmic_read_adc ended with status 1" in note
    assert note[:60] in caplog.text


def test_a_meter_that_is_set_and_not_there_stops_nothing_and_is_warned_of(
    device: Device, hand: HandAggregator, caplog: pytest.LogCaptureFixture
) -> None:
    with device.running(replace(device.config, meter="hwmon:ina226")):
        assert hand.wait_for(Birth).meters == ()
        hand.offer()
        manifest, _ = hand.take_upload()
        assert manifest.energy_source is EnergySource.MODELLED
    assert f"device {DEVICE}: meter hwmon:ina226: 0 channels" in caplog.text
    assert "energy is modelled" in caplog.text
