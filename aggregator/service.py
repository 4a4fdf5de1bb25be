"""The aggregator put together: settings in, a running service out. Everything is made here, in one place."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from fastapi import FastAPI
from numpy.lib.npyio import NpzFile

from aggregator import changes, logs, placing, ports, secret_files, state_dir, versions
from aggregator.allocate import POLICIES
from aggregator.app import build_app, serve_http
from aggregator.blobs import Blobs
from aggregator.broker import DEFAULT_PORTS, BrokerUrl, Guard, open_broker
from aggregator.config import FLEET, LOOPBACK, SYSTEM, Beside, Config, ConfigError
from aggregator.coordinator import Coordinator
from aggregator.desk import Desk
from aggregator.feed import Feed
from aggregator.guarding import guarding, open_keyring
from aggregator.home_assistant import HomeAssistant
from aggregator.link import Link
from aggregator.metrics import Metrics
from aggregator.room import HoldOut, Room
from aggregator.state_dir import Endpoint
from aggregator.store import BOOT, MAIN, Fact, RoundState, Store
from protocol.envelope import AGGREGATOR
from protocol.topics import Topics

SWITCH_S: Final = 0.0005
"""How long a busy thread keeps the others from running. The broker's thread asks for its turn several times for every
packet: at Python's 5 ms it took in some 60 packets a second while the coordinator was busy, however few there were."""

log = logging.getLogger("bitfleet.aggregator")


@dataclass(frozen=True)
class Service:
    """A running aggregator: broker and HTTP door are open, `run` does the work."""

    endpoint: Endpoint
    desk: Desk
    link: Link
    coordinator: Coordinator

    def run(self) -> None:
        """Work in this thread until `stop`."""
        sys.setswitchinterval(SWITCH_S)
        self.coordinator.run()

    def stop(self) -> None:
        """End `run` soon; from any thread or signal handler."""
        self.coordinator.stop()


Listener = Callable[[str, int, RoundState], None]
"""Called with job, round and state after every committed transition."""


def _nobody(*_: object) -> None:
    """Nobody listens."""


@contextmanager
def open_service(config: Config, *, on_transition: Listener = _nobody) -> Iterator[Service]:
    """An aggregator as `config` says; when the block ends, all of it is gone and the devices know.

    Args:
        config: what to serve.
        on_transition: listens to rounds.

    Raises:
        ConfigError: the hold-out file is not usable.
        StateDirError: another aggregator runs on the folder, or it cannot be made.
        StoreError: the database is damaged or of another version.
        SecretError: a key file is damaged or open to others.
        JobMismatch: the folder, or the file to start from, belongs to another job.
        StartError: the file to start from is not usable.
        PortError, BrokerError, ChildError: no broker, or no port for HTTP.
    """
    jobs = {MAIN: Beside(config.job, config.holdout, config.start), **config.jobs}
    hold_outs = {name: load_hold_out(each.holdout) for name, each in jobs.items() if each.holdout}
    with ExitStack() as stack:
        stack.enter_context(state_dir.locked(config.state_dir))
        last = state_dir.read_endpoint(config.state_dir)
        store = Store(config.state_dir / state_dir.DATABASE)
        stack.callback(store.close)
        key = secret_files.server_key(config.state_dir)
        blobs, rooms = Blobs(config.state_dir / state_dir.BLOBS), dict[str, Room]()
        for name, each in jobs.items():
            room = Room(
                store=store,
                blobs=blobs,
                topics=Topics(config.fleet),
                job=each.job,
                server_key=key.public,
                policy=POLICIES[each.job.allocate](),
                hold_out=hold_outs.get(name),
                start=each.start,
                on_transition=partial(on_transition, name),
                keep_free_mb=config.keep_free_mb,
                name=name,
                rooms=rooms,
                certificate_days=config.certificate_days,
                approve=config.approve,
            )
            versions.prepare(room)
        room = rooms[MAIN]
        placing.place_all(room)

        http_port = state_dir.lasting_port(config.http_host, config.http_port, last.http if last else "")
        ports.claim(
            config.http_host, http_port, what="HTTP", change="choose another with --port, or 0 for any free one"
        )
        keyring = open_keyring(config, room)
        wanted_port = (
            DEFAULT_PORTS["mqtts" if keyring else "mqtt"] if config.broker_port is None else config.broker_port
        )
        broker_port = state_dir.lasting_port(config.broker_host, wanted_port, last.broker if last else "")
        broker = stack.enter_context(
            open_broker(
                config.broker,
                host=config.broker_host,
                port=broker_port,
                folder=config.state_dir / "broker",
                report=lambda sentence: log.warning("broker: %s", sentence),
                guard=Guard(keyring, room.topics.root) if keyring else None,
            )
        )
        if keyring:
            stack.enter_context(guarding(keyring, room, broker, evicts=config.trusts_fleet))

        inbox: Queue[Any] = Queue()
        boot = next_boot(store)
        link = Link(
            url=broker,
            topics=room.topics,
            shard=room.shard,
            key=key,
            boot=boot,
            inbox=inbox,
            clock=time.time,
            context=keyring.client_context() if keyring and config.trusts_fleet else None,
            name=AGGREGATOR if config.trusts_fleet else "",
        )
        home = HomeAssistant(config.home_assistant, room, link.announce) if config.home_assistant else None
        coordinator = Coordinator(room, link, inbox, home.everything if home else _nobody)
        feed = Feed(boot)
        changes.watch(store, feed.tell)
        changes.watch(store, logs.change)
        metrics = Metrics(
            room,
            connected=lambda: link.connected,
            waiting=lambda: coordinator.waiting,
            lag_s=lambda: coordinator.lag_s,
        )
        for each_room in rooms.values():
            each_room.broadcast, each_room.timed = link.broadcast, metrics.timed
        desk = Desk(
            room=room,
            submit=coordinator.submit,
            connected=lambda: link.connected,
            admin_token=secret_files.admin_token(config.state_dir),
            open_reads=config.loopback_only,
            broker_for=broker_address(config, broker),
            broker_trust=FLEET if config.trusts_fleet else SYSTEM,
            feed=feed,
            registry=metrics.registry,
        )
        if home:
            changes.watch(store, home.tell)
            stack.enter_context(home.running())
        link.start()
        stack.callback(link.stop)
        app = build_app(desk)
        if config.page:
            _add_page(app, desk, config.state_dir)
        http = stack.enter_context(serve_http(app, config.http_host, http_port, keyring))
        endpoint = Endpoint(http, str(broker), key.public.raw.hex())
        state_dir.write_endpoint(config.state_dir, endpoint)
        _warn_of_openness(config)
        yield Service(endpoint, desk, link, coordinator)


def _add_page(app: FastAPI, desk: Desk, folder: Path) -> None:
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(folder / "page"))  # read when it is imported
    from aggregator import page  # noqa: PLC0415 (a second and 40 MB, for whoever shows it alone)

    page.install(app, desk)


def next_boot(store: Store) -> int:
    """Count this start."""
    with store.transaction() as session:
        fact = session.get(Fact, BOOT) or Fact(name=BOOT, value=b"0")
        boot = int(fact.value) + 1
        fact.value = str(boot).encode()
        session.add(fact)
    return boot


def load_hold_out(path: Path) -> HoldOut:
    """Held-out pictures from an .npz file with `pictures` uint8[N, C, H, W] and, if known, `labels` int[N].

    Raises:
        ConfigError: it cannot be read, or has another content.
    """
    try:
        with path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ConfigError(f"holdout {path}: not a readable .npz file: {error}") from error
    pictures, labels = arrays.get("pictures"), arrays.get("labels")
    if pictures is None or pictures.dtype != np.uint8 or pictures.ndim != 4 or not len(pictures):
        found = "none" if pictures is None else f"{pictures.dtype}{list(pictures.shape)}"
        raise ConfigError(f"holdout {path}: pictures are {found}, expected uint8[N, C, H, W] with N above 0")
    if labels is None:
        return HoldOut(pictures)
    if labels.shape != pictures.shape[:1] or labels.dtype.kind not in "iu":
        raise ConfigError(
            f"holdout {path}: labels are {labels.dtype}{list(labels.shape)}, expected whole numbers [{len(pictures)}]"
        )
    return HoldOut(pictures, labels.astype(np.int64))


def broker_address(config: Config, broker: BrokerUrl) -> Callable[[str], str]:
    """What a device is told of the broker, as a function of the host by which it reached the HTTP door.

    A child that listens on every address is reached by the name the device already uses.
    """

    def address(seen_host: str) -> str:
        if config.advertise_broker:
            return config.advertise_broker
        if "://" not in config.broker and config.broker_host in {"0.0.0.0", "::"}:  # noqa: S104 (compared, not bound)
            return str(BrokerUrl(seen_host, broker.port, broker.tls))
        return str(broker)

    return address


def _warn_of_openness(config: Config) -> None:
    child = config.own_broker
    if not config.guarded and not config.loopback_only:
        log.warning("HTTP listens on %s without TLS: tokens and models can be read on the way", config.http_host)
    if child and config.broker_host not in LOOPBACK and not config.guarded:
        log.warning(
            "the broker listens on %s and lets everyone connect: messages are signed, but keep strangers off",
            config.broker_host,
        )
    if child and config.broker_host in LOOPBACK and not config.loopback_only:
        log.warning("HTTP listens on %s, but the broker only on this machine: set broker_host", config.http_host)
