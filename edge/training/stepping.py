"""Training steps for the stopwatch: `python -m edge.training.stepping`, the child that `edge.measure` asks.

One JSON line a request on standard input, one JSON line back:

    → {"architecture": "resnet18:…", "precision": "W8A8", "batch": 32}    ← {"event": "ready"}
    → {"for_s": 3.0, "at_least": 5}    ← {"event": "calls", "wall_ns": […], "cpu_ns": […], "window_s": 3.02}

An error is {"event": "error", "message": "…"}. Weights are fresh, pictures are noise and stay the same: what a step
takes does not depend on what it learns. The learning rate is too small to leave the finite numbers.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from edge.measure.calls import repeat
from edge.training.limits import apply_limits
from edge.training.methods import method_for
from edge.training.model import Model
from edge.training.optimizer import optimizer_for
from edge.training.pipes import read_ahead, take_standard_output
from protocol import networks
from protocol.errors import ProtocolError
from protocol.initial import initial_tensors
from protocol.method import DEFAULT_METHOD, Method
from protocol.precision import Precision

LEARNING_RATE: Final = 1e-6


def main() -> None:
    """Answer until standard input closes."""
    parser = argparse.ArgumentParser(description="Step for the stopwatch; not meant to be started by hand.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    arguments = parser.parse_args()
    answers, requests = take_standard_output(), read_ahead(sys.stdin)
    apply_limits(memory_bytes=0, nice=arguments.nice)
    torch.set_num_threads(arguments.threads)
    step: Callable[[], None] | None = None
    while True:
        request = json.loads(requests.get())
        try:
            if "architecture" in request:
                step, answer = step_of(**request), {"event": "ready"}
            else:
                assert step is not None, "the network comes before the first window"
                answer = _timed(step, arguments.threads, **request)
        except (ProtocolError, ValueError, RuntimeError, MemoryError) as error:
            answer = {"event": "error", "message": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def step_of(architecture: str, precision: str, batch: int) -> Callable[[], None]:
    """A step of a fresh network on a batch of noise, as the trainer takes it.

    Raises:
        ProtocolError: there is no such network or precision.
    """
    table, parsed = networks.parse(architecture), Precision.parse(precision)
    model = Model(table, (parsed,), initial_tensors(table, parsed, 0))
    method = method_for(Method.parse("fp32" if parsed.is_float else DEFAULT_METHOD), model, 0)
    optimizer = optimizer_for(model, LEARNING_RATE)
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (batch, *table.input_shape), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, table.classes, batch))

    def step() -> None:
        optimizer.zero_grad()
        for term in method.terms(pictures, labels):
            term.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        method.settle()

    return step


def _timed(step: Callable[[], None], threads: int, for_s: float, at_least: int) -> dict[str, Any]:
    return {"event": "calls", **repeat(step, for_s, at_least, threads).to_plain()}


if __name__ == "__main__":
    main()
