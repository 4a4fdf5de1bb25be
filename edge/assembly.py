"""The one place where an agent is put together: from settings and a folder of state to parts that know each other."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from urllib3 import PoolManager

from edge.birth import load_pictures
from edge.broadcasts import Broadcasts
from edge.config import Config
from edge.crash_loop import CrashLoop
from edge.data import DataError
from edge.downloads import Downloads
from edge.gates import (
    BatteryGate,
    Gate,
    QuietHoursGate,
    TemperatureGate,
    read_battery_percent,
    read_temperature_c,
)
from edge.installer import Installer
from edge.lifecycle import Lifecycle
from edge.membership import Membership, device_key
from edge.meters.choose import open_meter
from edge.mqtt import Address
from edge.outbox import Outbox
from edge.renewal import Renewal
from edge.residual import Residuals
from edge.runtime import Runtime
from edge.sealing import Seal
from edge.spending import Counts, Spending
from edge.stage import Parts
from edge.state import Journal
from edge.trainer_process import TrainerProcess
from edge.trust import Trust
from edge.work import Workshop
from protocol.messages import Cost
from protocol.signing import VerifyKey
from protocol.topics import Topics

log = logging.getLogger(__name__)

JOURNAL_FILE: Final = "journal"
MODELS_FOLDER: Final = "models"
WORK_FOLDER: Final = "work"


def open_journal(config: Config, on_state: Callable[[Lifecycle], None] = lambda _: None) -> Journal:
    """The journal for a new start.

    Args:
        config: says where it is.
        on_state: called after each lifecycle move that is on disk.

    Raises:
        OSError: the state folder cannot be written.
    """
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal, note = Journal.open(config.state_dir / JOURNAL_FILE, on_state=on_state)
    if note:
        log.warning("device %s: %s", config.device, note)
    return journal


@contextmanager
def assembled(config: Config, membership: Membership, journal: Journal, http: PoolManager) -> Iterator[Parts]:
    """The parts of an agent, with its trainer ended when the block ends.

    Raises:
        MembershipError: the device's key is damaged.
        TrustError: the authority's certificate is.
        OSError: the state folder cannot be written.
    """
    device, folder = membership.device, config.state_dir
    key, trust = device_key(folder), Trust(folder)
    http = trust.connections(http)
    downloads = Downloads(folder / "downloads", config.aggregator, http)
    with (
        open_meter(config.meter) as opened,
        TrainerProcess(config.trainer_limits) as trainer,
        CrashLoop(journal) as crash_loop,
    ):
        for note in opened.notes:
            _warn(device, f"{note}; energy is {opened.meter.description.source}")
        installer = Installer(_restored(folder / MODELS_FOLDER, config.threads, device), downloads, opened.meter)
        workshop = Workshop(
            device=device,
            folder=_made(folder / WORK_FOLDER),
            data=config.data,
            classes=config.classes,
            downloads=downloads,
            broadcasts=Broadcasts(),
            trainer=trainer,
            residuals=Residuals(folder / "residuals"),
            outbox=Outbox(folder / "outbox", config.outbox_quota_bytes, on_damaged=lambda note: _warn(device, note)),
            meter=opened.meter,
            spending=Spending(opened.meter, lambda: _counts(installer), lambda: _cost(journal, installer)),
        )
        yield Parts(
            device=device,
            config=config,
            topics=Topics(membership.fleet),
            address=Address.parse(membership.broker),
            context=lambda: trust.broker(membership.broker_trust),
            renewal=Renewal(config, membership, trust, key, http),
            samples=_count_samples(config, device, journal.record.architecture),
            journal=journal,
            seal=Seal(device, key, VerifyKey(bytes.fromhex(membership.server_key)), journal),
            workshop=workshop,
            installer=installer,
            gates=(crash_loop, *_gates(config)),
        )


def _counts(installer: Installer) -> Counts:
    return Counts(installer.runtime.inferred, installer.downloads.received_bytes)


def _cost(journal: Journal, installer: Installer) -> Cost | None:
    """Of an inference with the model in use."""
    slot = installer.runtime.current
    costs = (cost for cost in journal.record.costs if slot is not None and cost.precision == slot.precision)
    return next(costs, None)


def _gates(config: Config) -> Iterator[Gate]:
    yield TemperatureGate(config.max_temperature_c, read_temperature_c)
    yield BatteryGate(config.min_battery_percent, read_battery_percent)
    if config.quiet_hours is not None:
        yield QuietHoursGate(config.quiet_hours, lambda: datetime.now().astimezone())


def _restored(folder: Path, threads: int, device: str) -> Runtime:
    runtime, notes = Runtime.restore(folder, threads=threads)
    for note in notes:
        _warn(device, note)
    return runtime


def _count_samples(config: Config, device: str, architecture: str) -> int:
    """How many pictures there are to train on; without any the device infers only."""
    if config.data is None:
        return 0
    try:
        pictures = load_pictures(config, architecture)
    except DataError as error:
        _warn(device, f"takes no part in training: {error}")
        return 0
    for reason in pictures.skipped:
        _warn(device, f"picture skipped: {reason}")
    return len(pictures)


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _warn(device: str, note: str) -> None:
    log.warning("device %s: %s", device, note)
