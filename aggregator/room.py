"""Everything a handler works with, assembled once by whoever runs the service (or by a test)."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aggregator.allocate import Policy, Program
from aggregator.authority import DEVICE_DAYS
from aggregator.blobs import Blobs
from aggregator.deadlines import Clock, Deadlines
from aggregator.job import Job
from aggregator.keyring import Keyring
from aggregator.space import Space
from aggregator.store import MAIN, RoundState, Store
from aggregator.uploads import Uploads
from protocol.architecture import Architecture
from protocol.signing import VerifyKey
from protocol.topics import Topics

AUTO = "auto"
MANUAL = "manual"
SYNTHETIC_PICTURES = 16
"""Enough to catch a wrong graph; every picture exercises every weight."""


@dataclass(frozen=True)
class HoldOut:
    """Pictures that exports are checked and rated on: uint8[N, C, H, W] and, if known, int64[N] labels."""

    pictures_NCHW: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64] | None = None


def noise(network: Architecture) -> HoldOut:
    """The same pictures of noise every time."""
    shape = (SYNTHETIC_PICTURES, *network.input_shape)
    return HoldOut(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _nobody(*_: object) -> None:
    """Nobody listens."""


def _nobody_asks(_: str) -> AbstractContextManager[None]:
    """Nobody wants to know."""
    return nullcontext()


@dataclass
class Room:
    """The core's surroundings for one job; one thread at a time works in all rooms of a fleet.

    Attributes:
        store: the fleet's; the room keeps a view of its own job.
        server_key: what devices check the aggregator's envelopes with.
        clock: wall-clock seconds since 1970.
        monotonic: seconds that never jump.
        hold_out: what exports are checked on; None checks on pictures of noise and rates nothing.
        start: weights file that version 0 is made of; None starts from nothing.
        on_transition: called with round and state after every committed transition.
        timed: wraps a step whose duration somebody may want to know: merge or export.
        keyring: certificates of the fleet; None where it has no authority.
        certificate_days: how long a device's certificate is good.
        approve: `auto` takes every device in that shows a good token, `manual` waits for an operator.
        cut_off: ends a revoked device's connection; nobody waits for it.
        broadcast: publishes bytes on a topic as well as it can; nobody waits for them.
        keep_free_mb: free space without which no round is opened.
        name: of the job.
        rooms: all of the fleet, by job, this one among them.
    """

    store: Store
    blobs: Blobs
    topics: Topics
    job: Job
    server_key: VerifyKey
    clock: Clock = time.time
    monotonic: Clock = time.monotonic
    shard: str = "0"
    policy: Policy = field(default_factory=Program)
    hold_out: HoldOut | None = None
    start: Path | None = None
    uploads: Uploads = field(default_factory=Uploads)
    on_transition: Callable[[int, RoundState], None] = _nobody
    timed: Callable[[str], AbstractContextManager[None]] = _nobody_asks
    keyring: Keyring | None = None
    certificate_days: float = DEVICE_DAYS
    approve: str = AUTO
    cut_off: Callable[[str], None] = _nobody
    broadcast: Callable[[str, bytes], None] = _nobody
    keep_free_mb: int = 0
    name: str = MAIN
    rooms: dict[str, "Room"] = field(default_factory=dict)
    unexportable: set[tuple[int, str]] = field(default_factory=set)
    """(version, precision) pairs whose export failed its check, not to be tried again by this process."""

    def __post_init__(self) -> None:
        self.store = self.store.of(self.name)
        self.rooms[self.name] = self

    @cached_property
    def space(self) -> Space:
        """What is left of the disk that holds everything."""
        return Space(self.store.path.parent, self.keep_free_mb)

    @cached_property
    def deadlines(self) -> Deadlines:
        """Time left, on this room's clocks."""
        return Deadlines(self.clock, self.monotonic)

    @cached_property
    def check_set(self) -> HoldOut:
        """The hold-out, or the same noise every time."""
        return self.hold_out or noise(self.job.network)

    @property
    def on_wire(self) -> str:
        """The job's name as devices see it: none of the main one, which was alone in earlier versions."""
        return "" if self.name == MAIN else self.name

    def of_group(self, group: str) -> str:
        """The job that devices of a group work for: the one that names the group, or the main one."""
        return next((name for name, room in self.rooms.items() if group in room.job.groups), MAIN)
