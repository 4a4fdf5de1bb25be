"""The trainer as a child process, so that running out of memory cannot take the agent down. Knows no torch."""

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from edge.training.task import Progress, TrainerError, TrainingTask

_STOP_S: Final = 5.0
"""The child ends by itself when its input closes; after this long it is killed."""

_TAIL_LINES: Final = 12
"""Of the child's standard error, quoted when it crashes."""


@dataclass(frozen=True, slots=True)
class TrainerLimits:
    """What training may take from the device.

    Attributes:
        memory_bytes: of writable memory, torch's own 0.2 GB included; 0 for no limit.
        threads: of torch. More than one may change the last bits of a result.
        nice: added to the priority number, 0 to 19.
        linger_s: how long it stays for the next task. Importing torch costs seconds, keeping it 0.2 GB.
    """

    memory_bytes: int = 0
    threads: int = 1
    nice: int = 10
    linger_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A task and where its files are.

    Attributes:
        task: what to do.
        base: the global tensors, as `edge.training.files.write_tensors` writes them.
        data: the pictures, any source that `edge.data.load` reads.
        result: where the result goes, for `edge.training.files.read_result`.
        classes: the fleet's class names, or their number.
    """

    task: TrainingTask
    base: Path
    data: Path
    result: Path
    classes: int | tuple[str, ...] | None = None

    def to_json(self) -> str:
        """The line that the child reads."""
        paths = {name: str(getattr(self, name).absolute()) for name in ("base", "data", "result")}
        return json.dumps({"task": asdict(self.task), "classes": self.classes, **paths})


class TrainerProcess:
    """Starts the trainer on the first task, keeps it for the next, and starts it again after a crash.

    A context manager: the child is gone when the block ends. `run` is for one thread at a time; `stop` may be called
    from any.
    """

    def __init__(self, limits: TrainerLimits) -> None:
        self._limits = limits
        self._child: _Child | None = None
        self._idle_since_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, request: TrainingRequest, on_progress: Callable[[Progress], None], *, timeout_s: float) -> Path:
        """Do one task.

        Args:
            request: the task and its files.
            on_progress: called in this thread as training advances.
            timeout_s: for the whole task, start of the child included.

        Returns:
            The result's path; the file is complete.

        Raises:
            TrainerError: torch is missing, or the trainer refused, crashed, was stopped or took too long.
        """
        deadline_s = time.monotonic() + timeout_s
        child = self._running_child()
        try:
            child.send(request.to_json())
            while (answer := child.answer(deadline_s - time.monotonic()))["event"] == "progress":
                on_progress(Progress(answer["fraction"], answer["epoch"], answer["loss"]))
        except queue.Empty:
            self.stop()
            raise TrainerError(f"training took longer than {timeout_s:g} s and was stopped") from None
        except BaseException:
            # Whatever it was, the child may still be talking about this task; the next one gets a new child.
            self.stop()
            raise
        finally:
            self._idle_since_s = time.monotonic()
        if answer["event"] == "error":
            raise TrainerError(answer["message"])
        return Path(answer["result"])

    def rest(self) -> None:
        """End a child that has waited for its next task longer than it may linger. Not while `run` is at work."""
        if self._child is not None and time.monotonic() - self._idle_since_s > self._limits.linger_s:
            self.stop()

    def stop(self) -> None:
        """End the child if there is one; a `run` in another thread then raises."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def _running_child(self) -> "_Child":
        if self._child is not None and self._child.has_ended:
            self.stop()
        if self._child is None:
            if importlib.util.find_spec("torch") is None:
                raise TrainerError("training needs torch, which is not installed: install bitfleet[edge-train]")
            self._child = _Child(self._limits)
        return self._child


class _Child:
    """The process, its pipes and the thread that reads its answers."""

    def __init__(self, limits: TrainerLimits) -> None:
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = subprocess.Popen(
            _command(limits),
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


def _command(limits: TrainerLimits) -> list[str]:
    options = {"memory-bytes": limits.memory_bytes, "threads": limits.threads, "nice": limits.nice}
    module = [sys.executable, "-m", "edge.training.worker"]
    return module + [f"--{name}={value}" for name, value in options.items()]


def _environment() -> dict[str, str]:
    """The agent's own, with this package in reach wherever it was started, and its thread pools kept small."""
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
