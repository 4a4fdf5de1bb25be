"""The trainer as a child process, so that running out of memory cannot take the agent down. Knows no torch."""

import json
import queue
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.trainer_child import TrainerChild
from edge.training.task import Progress, TrainerError, TrainingTask


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
        self._child: TrainerChild | None = None
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

    def _running_child(self) -> TrainerChild:
        if self._child is not None and self._child.has_ended:
            self.stop()
        if self._child is None:
            self._child = _child(self._limits)
        return self._child


def _child(limits: TrainerLimits) -> TrainerChild:
    options = {"memory-bytes": limits.memory_bytes, "threads": limits.threads, "nice": limits.nice}
    return TrainerChild("edge.training.worker", options)
