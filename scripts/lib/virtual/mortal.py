"""A service that is killed: each of its lives is forked from a process that has everything imported already.

A life is what `bitfleet-aggregator serve` is, opened from the folder that the one before left behind. What is shared
between lives is read-only code; starting one takes a tenth of the time that a fresh interpreter takes, so hundreds of
them can die in minutes.
"""

import logging
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

PRELOADED: Final = ["aggregator.service", "aggregator.config", "scipy.optimize", "virtual.mortal"]


def serve(config: Path, log: Path) -> None:
    """One life: the service, until it is asked to stop, or killed."""
    with log.open("ab") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    from aggregator.config import load  # noqa: PLC0415 (imported in the process that lives are forked from)
    from aggregator.service import open_service  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with open_service(load(config, environment={})) as service:
        signal.signal(signal.SIGTERM, lambda *_: service.stop())
        service.run()


@dataclass
class Mortal:
    """The service in `config`, one life after another; looks like a `processes.Child`."""

    config: Path
    log: Path
    deaths: int = 0
    _life: ForkServerProcess | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self) -> None:
        """Begin a life."""
        self._life = self._context.Process(target=serve, args=(self.config, self.log), daemon=True)
        self._life.start()

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._life is not None
        self._life.kill()
        self._life.join()
        self.deaths += 1

    def stop(self) -> None:
        """End it with SIGTERM, and insist."""
        if self._life is not None:
            self._life.terminate()
            self._life.join(15)
            if self._life.is_alive():
                self.kill()

    @property
    def pid(self) -> int:
        """Of the present life."""
        return (self._life.pid if self._life is not None else None) or 0

    @property
    def exit_code(self) -> int | None:
        """None while it lives."""
        return self._life.exitcode if self._life is not None else None

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:]) if self.log.exists() else ""
