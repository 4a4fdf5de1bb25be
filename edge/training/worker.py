"""The trainer's own process: `python -m edge.training.worker`.

One JSON line per task on standard input, JSON lines back on standard output:

    → {"task": {…}, "base": "….npz", "data": "…", "classes": null | 10 | ["cat", …], "result": "….npz"}
    ← {"event": "progress", "fraction": 0.25, "epoch": 1, "loss": 1.9}
    ← {"event": "done", "result": "….npz"}    or    {"event": "error", "message": "…"}

The process stays for the next task, since importing torch costs seconds, and ends as soon as its input closes, which
the operating system sees to when the agent dies in whatever way. (PR_SET_PDEATHSIG would be the other means, but it
fires when the *thread* that started the child ends.)
"""

import argparse
import json
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch

from edge.data import DataError, load
from edge.training.files import read_tensors, write_result
from edge.training.limits import apply_limits
from edge.training.pipes import read_ahead, take_standard_output
from edge.training.task import Progress, TrainerError, TrainingTask
from edge.training.trainer import train
from protocol import networks
from protocol.errors import ProtocolError

Say = Callable[[dict[str, Any]], None]

_EXPECTED: Final = (TrainerError, DataError, ProtocolError, OSError)
"""Their message says all there is to say."""

_OUT_OF_MEMORY: Final = re.compile(
    r"can't allocate memory|not enough memory|bad_alloc|failed to allocate", re.IGNORECASE
)
"""How torch and its kernels word it, inside a RuntimeError."""


def main() -> None:
    """Serve tasks until standard input closes."""
    parser = argparse.ArgumentParser(description="Train for the agent; not meant to be started by hand.")
    parser.add_argument("--memory-bytes", type=int, default=0, help="limit of writable memory, 0 for none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    arguments = parser.parse_args()
    answers, tasks = take_standard_output(), read_ahead(sys.stdin)
    apply_limits(memory_bytes=arguments.memory_bytes, nice=arguments.nice)
    torch.set_num_threads(arguments.threads)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    while True:
        say(serve(tasks.get(), say))


def serve(line: str, say: Say) -> dict[str, Any]:
    """Do one task; returns the final answer, whatever happens."""
    try:
        return _serve(json.loads(line), say)
    except MemoryError as error:
        return _failed(f"out of memory: {str(error) or 'an allocation failed'}")
    except _EXPECTED as error:
        return _failed(str(error))
    except Exception as error:  # noqa: BLE001 (the outermost layer of this process)
        if _OUT_OF_MEMORY.search(str(error)):
            return _failed(f"out of memory: {error}")
        traceback.print_exc()
        return _failed(f"{type(error).__name__}: {error}")


def _serve(request: dict[str, Any], say: Say) -> dict[str, Any]:
    task = TrainingTask(**request["task"])
    classes = request["classes"]
    dataset = load(
        Path(request["data"]),
        input_shape=networks.parse(task.architecture).input_shape,
        classes=tuple(classes) if isinstance(classes, list) else classes,
    )
    base = read_tensors(Path(request["base"]))
    result = train(task, base, dataset, lambda progress: say(_progressed(progress)))
    write_result(Path(request["result"]), result)
    return {"event": "done", "result": request["result"]}


def _progressed(progress: Progress) -> dict[str, Any]:
    return {"event": "progress", **asdict(progress)}


def _failed(message: str) -> dict[str, Any]:
    return {"event": "error", "message": message}


if __name__ == "__main__":
    main()
