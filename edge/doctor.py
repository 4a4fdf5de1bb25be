"""Is this device fit for its fleet? Each check is one small class that says pass, warn or fail, and what to do."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

import psutil
import urllib3

from edge.assembly import MODELS_FOLDER
from edge.birth import load_pictures
from edge.config import Config
from edge.data import DataError
from edge.diagnosis import CertificateCheck, check_broker, explain
from edge.finding import Finding, Verdict
from edge.membership import KEY_FILE, Membership, MembershipError, device_key, load_membership
from edge.memory import MEGABYTE, memory
from edge.meters.base import MeterError
from edge.meters.choose import AUTO, open_meter
from edge.meters.look import watts_now
from edge.mqtt import V5, V311, VERSION_NAMES, Address, Connection, LinkError, VersionRefused
from edge.runtime import Runtime
from edge.trust import Trust, TrustError
from edge.work import can_train
from protocol.operators import operators

MIN_INFERENCE_MEMORY_BYTES: Final = 128 * MEGABYTE
MIN_TRAINING_MEMORY_BYTES: Final = 512 * MEGABYTE
"""torch alone takes 219 MB; the rest is for activations of a reduced ResNet18."""
MIN_DISK_BYTES: Final = 256 * MEGABYTE
RUNTIME_RANGE: Final = ((1, 23), (1, 29))
"""ONNX Runtime from 1.23; from 1.29 its Linux wheels send telemetry."""
MAX_CLOCK_ERROR_S: Final = 300.0
"""Nothing is decided by a clock, but TLS certificates and people read it."""
EARLIEST_YEAR: Final = 2025
TIMEOUT_S: Final = 10.0
METER_ADVICE: Final = (
    "is it wired and switched on, and may this user read it (groups i2c, video)? bitfleet-edge meters shows what is"
    ' here; meter = "auto" takes what the board has of itself'
)


class Check(Protocol):
    """One question."""

    def run(self) -> Finding:
        """The answer; never raises for a fault of the device."""
        ...


def checks(config: Config) -> Iterator[Check]:
    """Every check, from what the others stand on to what stands on them."""
    yield KeyCheck(config)
    yield MembershipCheck(config)
    yield CertificateCheck(Trust(config.state_dir))
    yield AggregatorCheck(config)
    yield BrokerCheck(config)
    yield DataCheck(config)
    yield TrainerCheck(config)
    yield RuntimeCheck()
    yield ModelCheck(config)
    yield MemoryCheck(config)
    yield DiskCheck(config)
    yield MeterCheck(config)
    yield ClockCheck(config)


def examine(config: Config) -> list[Finding]:
    """Run every check."""
    return [check.run() for check in checks(config)]


@dataclass(frozen=True)
class KeyCheck:
    """Is the device's key whole, and nobody else's to read?"""

    config: Config

    def run(self) -> Finding:
        """Fails on a damaged key or one that others may read."""
        path = self.config.state_dir / KEY_FILE
        if not path.exists():
            return Finding("key", Verdict.WARN, f"none yet in {self.config.state_dir}", "it is made when joining")
        try:
            key = device_key(self.config.state_dir)
        except (MembershipError, OSError) as error:
            return Finding("key", Verdict.FAIL, str(error), "restore the file, or join again under another name")
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            return Finding("key", Verdict.FAIL, f"{path} has mode {mode:o}", f"chmod 600 {path}")
        return Finding("key", Verdict.PASS, f"public key {key.public.raw.hex()[:16]}…")


@dataclass(frozen=True)
class MembershipCheck:
    """Has the device joined?"""

    config: Config

    def run(self) -> Finding:
        """Fails until it has."""
        try:
            membership = load_membership(self.config.state_dir)
        except MembershipError as error:
            return Finding("membership", Verdict.FAIL, str(error), "bitfleet-edge join --token TOKEN")
        if membership is None:
            return Finding("membership", Verdict.FAIL, "not joined", "bitfleet-edge join --token TOKEN")
        return Finding("membership", Verdict.PASS, f"device {membership.device} of fleet {membership.fleet}")


@dataclass(frozen=True)
class AggregatorCheck:
    """Does the aggregator answer?"""

    config: Config

    def run(self) -> Finding:
        """Fails without a 200 from `/healthz`."""
        url = self.config.aggregator
        if not url:
            return Finding("aggregator", Verdict.FAIL, "no URL", "set aggregator, for example http://10.0.0.2:8700")
        try:
            status = _health(self.config).status
        except (urllib3.exceptions.HTTPError, TrustError, OSError) as error:
            usual = str(error), "is it running, is the address right, is a firewall between?"
            meaning, advice = explain(error) or usual
            return Finding("aggregator", Verdict.FAIL, f"{url}: {meaning}", advice)
        if status != 200:
            return Finding("aggregator", Verdict.FAIL, f"{url}/healthz answered {status}", "look at its log")
        return Finding("aggregator", Verdict.PASS, f"{url} answers")


@dataclass(frozen=True)
class BrokerCheck:
    """Does the broker let us in? With a real CONNECT, under a name of its own so that a running agent stays on."""

    config: Config

    def run(self) -> Finding:
        """Fails when CONNECT does."""
        membership = _membership(self.config)
        if membership is None:
            return Finding("broker", Verdict.WARN, "unknown before joining", "bitfleet-edge join --token TOKEN")
        address = Address.parse(membership.broker)
        if address.tls:
            return check_broker(address, Trust(self.config.state_dir), membership.broker_trust)
        try:
            connection = _connect(address, f"{membership.device[:57]}-doctor")
        except LinkError as error:
            advice = "is the broker running, is a firewall between, does it allow this device?"
            return Finding("broker", Verdict.FAIL, str(error), advice)
        connection.close()
        packets = f"packets up to {connection.packet_bytes} bytes"
        return Finding("broker", Verdict.PASS, f"{address} speaks MQTT {VERSION_NAMES[connection.version]}, {packets}")


@dataclass(frozen=True)
class DataCheck:
    """Are there pictures to train on?"""

    config: Config

    def run(self) -> Finding:
        """Fails on a source without usable pictures, warns of skipped ones."""
        if self.config.data is None:
            return Finding("data", Verdict.WARN, "none set: this device infers only", "set data to train as well")
        try:
            pictures = load_pictures(self.config, "")
        except DataError as error:
            return Finding("data", Verdict.FAIL, str(error), "see README, section Data")
        counts = zip(pictures.class_names, pictures.counts, strict=True)
        detail = f"{len(pictures)} pictures: {', '.join(f'{name} {count}' for name, count in counts)}"
        if pictures.skipped:
            detail += f"; {len(pictures.skipped)} skipped, the first: {pictures.skipped[0]}"
            return Finding("data", Verdict.WARN, detail, "repair or remove the skipped files")
        return Finding("data", Verdict.PASS, detail)


@dataclass(frozen=True)
class TrainerCheck:
    """Can the device train?"""

    config: Config

    def run(self) -> Finding:
        """Fails without torch, unless the device only infers."""
        if can_train():
            return Finding("trainer", Verdict.PASS, f"torch {_version('torch')}")
        verdict = Verdict.WARN if self.config.data is None else Verdict.FAIL
        return Finding("trainer", verdict, "torch is not installed", "install bitfleet[edge-train], or unset data")


class RuntimeCheck:
    """Is ONNX Runtime a version that stays quiet and runs our models?"""

    def run(self) -> Finding:
        """Fails outside `RUNTIME_RANGE`."""
        found = _version("onnxruntime")
        low, high = RUNTIME_RANGE
        try:
            number = tuple(int(part) for part in found.split(".")[:2])
        except ValueError:
            return Finding("runtime", Verdict.FAIL, f"onnxruntime is {found}", "install bitfleet[edge]")
        wanted = f">={low[0]}.{low[1]},<{high[0]}.{high[1]}"
        if not low <= number < high:
            return Finding("runtime", Verdict.FAIL, f"onnxruntime {found}", f"pip install 'onnxruntime{wanted}'")
        detail = f"onnxruntime {found}, telemetry off; binary convolutions {operators(found).note}"
        return Finding("runtime", Verdict.PASS, detail)


@dataclass(frozen=True)
class ModelCheck:
    """Does the model that is installed answer here, and what does it take?"""

    config: Config

    def run(self) -> Finding:
        """Warns when one no longer loads; a device may have none yet."""
        runtime, notes = Runtime.restore(self.config.state_dir / MODELS_FOLDER, threads=self.config.threads)
        slot = runtime.current
        if notes:
            return Finding("model", Verdict.WARN, "; ".join(notes), "the fleet's next model will replace it")
        if slot is None:
            return Finding("model", Verdict.PASS, "none yet: it arrives after the fleet's first round")
        taken = memory()
        detail = (
            f"version {slot.version} at {slot.precision} answers on {self.config.threads} thread"
            f"{'s' if self.config.threads > 1 else ''}; this process takes {taken.now_bytes // MEGABYTE} MB with it,"
            f" {taken.peak_bytes // MEGABYTE} at its peak"
        )
        return Finding("model", Verdict.PASS, detail)


@dataclass(frozen=True)
class MemoryCheck:
    """Is there memory for what the device is to do?"""

    config: Config

    def run(self) -> Finding:
        """Warns when there is too little."""
        available = psutil.virtual_memory().available
        trains = self.config.data is not None
        needed = MIN_TRAINING_MEMORY_BYTES if trains else MIN_INFERENCE_MEMORY_BYTES
        detail = (
            f"{available // MEGABYTE} MB available, {needed // MEGABYTE} needed to {'train' if trains else 'infer'}"
        )
        if available < needed:
            return Finding("memory", Verdict.WARN, detail, "close other programs, or unset data to infer only")
        return Finding("memory", Verdict.PASS, detail)


@dataclass(frozen=True)
class DiskCheck:
    """Is there room for models and updates?"""

    config: Config

    def run(self) -> Finding:
        """Fails when there is too little."""
        folder = next(path for path in (self.config.state_dir, *self.config.state_dir.parents) if path.exists())
        free = shutil.disk_usage(folder).free
        detail = f"{free // MEGABYTE} MB free in {folder}, {MIN_DISK_BYTES // MEGABYTE} needed"
        if free < MIN_DISK_BYTES:
            return Finding("disk", Verdict.FAIL, detail, "free some space, or set state_dir to another disk")
        return Finding("disk", Verdict.PASS, detail)


@dataclass(frozen=True)
class MeterCheck:
    """Can energy be measured? Asks the meter for a second."""

    config: Config

    def run(self) -> Finding:
        """Warns when the one that is set does not answer; a device may have none."""
        spec = self.config.meter
        with open_meter(spec) as opened:
            what = opened.meter.description
            try:
                watts = watts_now(opened.meter)
            except MeterError as error:
                return Finding("meter", Verdict.WARN, str(error), METER_ADVICE)
        notes = "; ".join(opened.notes)
        if watts is not None:
            accuracy = f"{what.accuracy}, ±{what.error_percent:g} %, {what.rate_hz:g} readings a second"
            detail = f"{what.name} ({accuracy}): {watts:.3f} W now; includes {what.includes}"
            return Finding("meter", Verdict.PASS, detail + (f"; passed over: {notes}" if notes else ""))
        if notes and spec != AUTO:
            return Finding("meter", Verdict.WARN, f"{notes}; energy will be modelled", METER_ADVICE)
        detail = f"{what.name}{f' ({notes})' if notes else ''}: energy will be modelled, and every figure says so"
        return Finding("meter", Verdict.PASS, detail)


@dataclass(frozen=True)
class ClockCheck:
    """Does the clock agree with the aggregator's?"""

    config: Config

    def run(self) -> Finding:
        """Warns when it does not; only people and TLS care."""
        now = time.time()
        advice = "set the clock (timedatectl set-ntp true)"
        if time.gmtime(now).tm_year < EARLIEST_YEAR:
            return Finding("clock", Verdict.WARN, f"{time.strftime('%Y-%m-%d %H:%M:%S')}: not set", advice)
        try:
            date = _health(self.config).headers.get("Date", "") if self.config.aggregator else ""
        except (urllib3.exceptions.HTTPError, TrustError, OSError):
            date = ""
        if not date:
            return Finding("clock", Verdict.PASS, f"{time.strftime('%Y-%m-%d %H:%M:%S')}, nothing to compare it with")
        error_s = now - parsedate_to_datetime(date).timestamp()
        detail = f"{abs(error_s):.0f} s {'ahead of' if error_s > 0 else 'behind'} the aggregator"
        if abs(error_s) > MAX_CLOCK_ERROR_S:
            return Finding("clock", Verdict.WARN, detail, advice)
        return Finding("clock", Verdict.PASS, detail)


def _membership(config: Config) -> Membership | None:
    try:
        return load_membership(config.state_dir)
    except MembershipError:
        return None


def _connect(address: Address, client_id: str) -> Connection:
    try:
        connection = Connection(address, client_id, V5)
        connection.open()
    except VersionRefused:
        connection = Connection(address, client_id, V311)
        connection.open()
    return connection


def _health(config: Config) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager() as plain:
        http = Trust(config.state_dir).connections(plain)
        return http.request("GET", f"{config.aggregator}/healthz", timeout=TIMEOUT_S, retries=False)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
