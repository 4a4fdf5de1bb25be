"""A child process that has torch: JSON lines in, JSON lines out, an obituary when it dies. Knows no torch itself."""

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edge.training.task import TrainerError

_STOP_S: Final = 5.0
"""The child ends by itself when its input closes; after this long it is killed."""

_TAIL_LINES: Final = 12
"""Of the child's standard error, quoted when it crashes."""


class TrainerChild:
    """The process, its pipes and the thread that reads its answers.

    Args:
        module: what it runs, one of `edge.training`.
        options: of its command line, by name.

    Raises:
        TrainerError: torch is not installed.
    """

    def __init__(self, module: str, options: dict[str, int]) -> None:
        if importlib.util.find_spec("torch") is None:
            raise TrainerError("training needs torch, which is not installed: install bitfleet[edge-train]")
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *(f"--{name}={value}" for name, value in options.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            # Ctrl-C in a terminal goes to the whole group; the agent decides when its trainer ends.
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_log)]
        for reader in self._readers:
            reader.start()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, killed between two tasks for example."""
        return self._process.poll() is not None

    def send(self, line: str) -> None:
        """Hand over one request.

        Raises:
            TrainerError: the child has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise TrainerError(self._obituary()) from None

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The next answer.

        Raises:
            TrainerError: the child has ended.
            queue.Empty: the time is up.
        """
        answer = self._answers.get(timeout=max(timeout_s, 0))
        if answer is None:
            raise TrainerError(self._obituary())
        return answer

    def stop(self) -> None:
        """Close its input, upon which it ends by itself; kill it if it does not. Idempotent."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join()

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        # A child killed while it writes leaves half a line, which is no JSON and no answer.
        with self._process.stdout as answers, suppress(json.JSONDecodeError):
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as log:
            self._tail.extend(log)

    def _obituary(self) -> str:
        code = self._process.wait()
        ended = f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        likely = ", as the kernel does when memory runs out" if code == -signal.SIGKILL else ""
        self._readers[1].join()
        tail = "".join(self._tail).strip()
        return f"the trainer ended {ended}{likely}{f': {tail}' if tail else ''}"


def _environment() -> dict[str, str]:
    """The agent's own, with this package in reach wherever it was started, and its thread pools kept small."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
