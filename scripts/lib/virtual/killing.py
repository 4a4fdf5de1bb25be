"""A fleet of virtual devices whose service is killed at random moments, and the same fleet left in peace.

Everything random follows from the job's seed, all devices answer in every round, and no round ends before: so both must
make the same models, round by round, to the bit.
"""

import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import select

from aggregator.broker import open_broker
from aggregator.planning import newest_round
from aggregator.ports import free_port
from aggregator.state_dir import DATABASE
from aggregator.store import Model, StoreError, StoreReader
from virtual import accountant, ledger
from virtual.mortal import Mortal
from virtual.stage import Stage

NETWORK: Final = "resnet18:width=0.0625,stem=3x3,input=1x8x8,classes=10"
HOST: Final = "127.0.0.1"
QUIET_PORTS: Final = (20_000, 30_000)
"""Below what systems give to outgoing connections: one could take the port of a service that is dead for a moment."""
GROWN_UP: Final = 0.75
"""Of all lives; the others may end before they have begun to work."""


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        digests: of each round's model.
        killed_in: how often it was killed in each state of a round.
        verdict: of the accountant.
        wall_s: how long it took.
    """

    digests: dict[int, str]
    killed_in: Counter[str]
    verdict: accountant.Verdict
    wall_s: float


@dataclass
class MortalStage(Stage):
    """A stage whose service is forked, and may be killed."""

    mortal: Mortal = field(init=False)

    def start_aggregator(self) -> Any:
        """The first life."""
        self.mortal = Mortal(self.write_settings(), self.folder / "aggregator.log")
        self.mortal.start()
        return self.mortal

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.mortal.stop()
        super().__exit__(kind, error, at)


def job(devices: int, rounds: int) -> dict[str, Any]:
    """Rounds that end when everybody has delivered, and not before."""
    return {
        "architecture": NETWORK,
        "rounds": rounds,
        "downlink": "delta:eden:4",
        "precisions": ["W4A8"],
        "min_devices": devices,
        "quorum": 1.0,
        "deadline_s": 3600.0,
        "seed": 7,
    }


def undisturbed(folder: Path, devices: int, rounds: int, within_s: float) -> Outcome:
    """So many rounds in peace."""
    return _run(folder, devices, rounds, lambda stage: stage.until(lambda: _made(stage) >= rounds, "it ends", within_s))


def killed(
    folder: Path,
    devices: int,
    kills: int,
    *,
    mean_life_s: float,
    seed: int,
    within_s: float,
    told: Callable[[int, int], object] = lambda _kills, _rounds: None,
) -> Outcome:
    """Rounds without end, and the service killed `kills` times; then the round that runs may end in peace.

    Args:
        folder: for everything.
        devices: how many.
        kills: how many.
        mean_life_s: three lives of four end after a time from the exponential distribution with this mean, once their
            door is open; the fourth as soon while it starts.
        seed: of the moments.
        within_s: after which it is given up.
        told: called with kills and rounds so far.
    """
    rng, states = random.Random(seed), Counter[str]()

    def kill_all(stage: MortalStage) -> None:
        give_up_at_s = time.monotonic() + within_s
        while stage.mortal.deaths < kills:
            if rng.random() < GROWN_UP:
                stage.until(lambda: _is_open(stage), "the service opens its door", 120, every_s=0.02)
            time.sleep(rng.expovariate(1 / mean_life_s))
            stage.check()
            stage.mortal.kill()
            states[_state(stage)] += 1
            stage.mortal.start()
            told(stage.mortal.deaths, _made(stage))
            if time.monotonic() > give_up_at_s:
                raise TimeoutError(f"{stage.mortal.deaths} kills in {within_s:.0f} s, not {kills}")
        last = _made(stage) + 1
        stage.until(lambda: _made(stage) >= last, "the last round ends", 120)

    outcome = _run(folder, devices, 0, kill_all)
    outcome.killed_in.update(states)
    return outcome


def _run(folder: Path, devices: int, rounds: int, act: Callable[[MortalStage], object]) -> Outcome:
    began_s = time.monotonic()
    broker_port, http_port = (free_port(HOST, random.randrange(*QUIET_PORTS)) for _ in range(2))
    with open_broker("mosquitto", host=HOST, port=broker_port, folder=folder / "broker", report=lambda _: None) as url:
        with MortalStage(folder, job(devices, rounds), {"broker": str(url), "http_port": http_port}) as stage:
            stage.populate(devices, 1, training_s=0.1)
            act(stage)
            stage.door.post("/api/v1/rounds/pause", {})
            _let_finish(stage)
            stage.settle()
            stage.finish()
        verdict = accountant.judge(ledger.read(stage.ledgers), stage.state)
    return Outcome(digests(stage), Counter(), verdict, time.monotonic() - began_s)


def _let_finish(stage: MortalStage) -> None:
    stage.until(lambda: _state(stage) in {"announced", "aborted"}, "the round that runs ends", 120)


def _is_open(stage: MortalStage) -> bool:
    where = urlsplit(stage.door.url)
    try:
        socket.create_connection((where.hostname or HOST, where.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def _made(stage: MortalStage) -> int:
    return max(digests(stage), default=0)


def digests(stage: Stage) -> dict[int, str]:
    """Of the models so far; none before there is a database."""
    with suppress(StoreError):
        store = StoreReader(stage.state / DATABASE)
        with store.reading() as session:
            found = {row.version: row.digest for row in session.scalars(select(Model)) if row.version}
        store.close()
        return found
    return {}


def _state(stage: MortalStage) -> str:
    """Of the newest round."""
    store = StoreReader(stage.state / DATABASE)
    with store.reading() as session:
        current = newest_round(session)
    store.close()
    return current.state.value if current is not None else "none"
