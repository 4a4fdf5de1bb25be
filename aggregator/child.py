"""One child process under supervision: started, waited for, started again when it dies, ended with its owner."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aggregator import tether

READY_WITHIN_S: Final = 20.0
"""A Raspberry Pi Zero needs about ten seconds to import a Python broker."""
STOP_WITHIN_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
STEADY_AFTER_S: Final = 30.0
"""A child that ran this long failed for a new reason: the pause before its restart is short again."""
MAX_LOG_BYTES: Final = 1 << 20


class ChildError(Exception):
    """The child cannot be started; the message carries its last words."""


class Child:
    """A program that runs as long as the block does.

    One thread starts it and waits for its end, always the same one: the kernel kills a tethered child when the
    *thread* that started it ends.

    Args:
        command: program and arguments.
        log: where its output goes.
        ready: raises OSError until the child does its work.
        report: told in a sentence when the child died and when it is back.
        environment: added to this process's own.

    Raises:
        ChildError: on entry, if it does not get ready.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], object],
        report: Callable[[str], None],
        environment: dict[str, str] | None = None,
    ) -> None:
        self._command, self._log, self._ready, self._report = list(command), log, ready, report
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping, self._first_start = threading.Event(), threading.Event()
        self._failure = ""
        self._thread = threading.Thread(target=self._supervise, name="broker-child", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._first_start.wait()
        if self._failure:
            self._thread.join()
            raise ChildError(self._failure)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._end(self._process)
        self._thread.join()

    def signal(self, number: int) -> None:
        """Send the child a signal; one that is down reads everything anew when it starts."""
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    @property
    def pid(self) -> int | None:
        """Its process number; None before the first start."""
        return self._process.pid if self._process else None

    def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stopping.is_set():
            started_at = time.monotonic()
            self._process = process = self._start()
            ready = self._wait_until_ready(process)
            if not self._first_start.is_set():
                self._failure = "" if ready else f"{self._command[0]} did not start: {self._last_words()}"
                self._first_start.set()
                if not ready:
                    self._end(process)
                    return
            elif ready:
                self._report(f"{self._command[0]} runs again (process {process.pid})")
            process.wait()
            if self._stopping.is_set():
                return
            pause_s = FIRST_PAUSE_S if time.monotonic() - started_at > STEADY_AFTER_S else pause_s
            self._report(
                f"{self._command[0]} ended with {_verdict(process.returncode)} ({self._last_words()});"
                f" starting it again in {pause_s:.1f} s"
            )
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.unlink()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                # -I: nothing in the environment or beside the file can stand in for the standard library.
                [sys.executable, "-I", tether.__file__, str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the aggregator, which still has a last word to publish
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while process.poll() is None and time.monotonic() < give_up_at and not self._stopping.is_set():
            try:
                self._ready()
            except OSError:
                self._stopping.wait(0.05)
            else:
                return True
        return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1].strip() if lines else f"nothing in {self._log}"

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _verdict(returncode: int) -> str:
    return f"signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
