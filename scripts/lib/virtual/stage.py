"""An aggregator with its broker, and crowds of virtual devices, each a process: started, watched and ended together."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
from door import Door
from processes import TETHER, Child, Children

from virtual.crowd import Plan

HERE: Final = Path(__file__).parent.parent
START_WITHIN_S: Final = 60.0
FLEET: Final = "load"


class StageError(Exception):
    """Something did not start, or ended by itself; the message has its last words."""


@dataclass
class CrowdProcess:
    """A process of virtual devices, and what it said last."""

    process: subprocess.Popen[str]
    plan: Plan
    told: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self.listen, daemon=True)

    def command(self, word: str) -> None:
        """Say `churn` or `settle`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def listen(self) -> None:
        """Take what it says until it ends; for a thread of its own."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.told = json.loads(line)


@dataclass
class Stage:
    """Everything that runs, in `folder`.

    Args:
        folder: for every file.
        job: the keys of the job.
        settings: more keys of the aggregator, its broker among them.
    """

    folder: Path
    job: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    crowds: list[CrowdProcess] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.children = Children(self.folder).__enter__()
        self.aggregator = self.start_aggregator()
        self.door = self._opened()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for crowd in self.crowds:
            crowd.process.terminate()
            crowd.process.wait()
            assert crowd.process.stdin is not None
            crowd.process.stdin.close()
            crowd.listener.join()
        self.children.__exit__(kind, error, at)

    @property
    def state(self) -> Path:
        """The aggregator's folder."""
        return self.folder / "aggregator"

    @property
    def ledgers(self) -> list[Path]:
        """Of all crowds."""
        return [Path(crowd.plan.ledger) for crowd in self.crowds]

    def start_aggregator(self) -> Child:
        """As an operator would."""
        path = str(self.write_settings())
        return self.children.start("aggregator-serve", "bitfleet-aggregator", "serve", "--config", path)

    def write_settings(self) -> Path:
        """The aggregator's configuration, as a file."""
        settings = {
            "fleet": FLEET,
            "state_dir": str(self.state),
            "http_port": 0,
            "broker_port": 0,
            "broker": "mosquitto",
            **self.settings,
        }
        lines = [*_toml(settings), "[job]", *_toml(self.job)]
        path = self.folder / "aggregator.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def populate(self, agents: int, processes: int, prefix: tuple[str, ...] = (), **plan: Any) -> None:
        """Let so many devices join and connect, in equal crowds; returns when all are there.

        Args:
            agents: how many.
            processes: in how many crowds.
            prefix: stands before the crowds' commands.
            plan: what is special about them (`Plan`).
        """
        token = self.door.post("/api/v1/tokens", {"uses": agents})["token"]
        endpoint = json.loads((self.state / "endpoint.json").read_text())
        host, _, port = endpoint["broker"].removeprefix("mqtt://").rpartition(":")
        common = {"fleet": FLEET, "token": token, "server_key": endpoint["server_key"], "http": endpoint["http"]}
        bounds = [agents * index // processes for index in range(processes + 1)]
        for index, (first, last) in enumerate(pairwise(bounds)):
            where = {
                "broker_host": host,
                "broker_port": int(port),
                "ledger": str(self.folder / f"ledger-{index}.jsonl"),
            }
            self.start_crowd(Plan(**{**common, **where, **plan}, first=first, count=last - first), prefix)
        self.until(lambda: self.told("present") == agents, "all devices are there", 300 + agents / 10)

    def start_crowd(self, plan: Plan, prefix: tuple[str, ...] = ()) -> CrowdProcess:
        """A process for one crowd; `prefix` stands before its command, to enter a namespace."""
        path = self.folder / f"crowd-{plan.first}.json"
        plan.write(path)
        with path.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *prefix,
                    sys.executable,
                    str(TETHER),
                    str(os.getpid()),
                    sys.executable,
                    "-m",
                    "virtual.crowd",
                    str(path),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=HERE,
            )
        crowd = CrowdProcess(process, plan)
        crowd.listener.start()
        self.crowds.append(crowd)
        return crowd

    def command(self, word: str) -> None:
        """Say a word to every crowd."""
        for crowd in self.crowds:
            crowd.command(word)

    def told(self, what: str) -> int:
        """A sum over what crowds said last; a crowd that has said nothing yet counts as none."""
        return sum(crowd.told.get(what, 0) for crowd in self.crowds)

    def settle(self, within_s: float = 180.0) -> None:
        """All devices come back, and nobody waits for a receipt any more."""
        self.command("settle")
        agents = sum(crowd.plan.count for crowd in self.crowds)
        quiet = [0]

        def calm() -> bool:
            quiet[0] = quiet[0] + 1 if self.told("present") == agents and not self.told("owed") else 0
            return quiet[0] >= 15  # longer than a crowd takes to say how it stands

        self.until(calm, "every update has its receipt", within_s)

    def finish(self) -> None:
        """End the crowds, so that their ledgers are whole."""
        for crowd in self.crowds:
            assert crowd.process.stdin is not None
            crowd.process.stdin.close()
            crowd.process.wait(30)
            crowd.listener.join()

    def until(self, condition: Callable[[], bool], what: str, within_s: float, every_s: float = 0.2) -> None:
        """Wait, while everything is alive.

        Raises:
            StageError: something ended, or it took too long.
        """
        give_up_at = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > give_up_at:
                raise StageError(f"not within {within_s:.0f} s: {what}\n{self.aggregator.last_lines(20)}")
            time.sleep(every_s)

    def check(self) -> None:
        """Whether all run.

        Raises:
            StageError: one does not.
        """
        if self.aggregator.exit_code is not None:
            raise StageError(f"the aggregator ended: {self.aggregator.last_lines(20)}")
        for crowd in self.crowds:
            if crowd.process.poll() is not None:
                log = self.folder / f"crowd-{crowd.plan.first}.log"
                raise StageError(f"a crowd ended with status {crowd.process.returncode}: {log.read_text()[-2000:]}")

    def broker(self) -> psutil.Process | None:
        """The aggregator's broker child."""
        children = psutil.Process(self.aggregator.pid).children()
        return next((child for child in children if "mosquitto" in " ".join(child.cmdline())), None)

    def _opened(self) -> Door:
        found: list[Door] = []

        def is_open() -> bool:
            door = Door.of(self.state)
            found.extend([door] if door is not None else [])
            return bool(found)

        self.until(is_open, "the aggregator opens its door", START_WITHIN_S)
        return found[0]


def _toml(table: Mapping[str, Any]) -> list[str]:
    """TOML of plain values, which JSON spells the same."""
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
