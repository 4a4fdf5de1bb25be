"""A training step, in a child process that has torch: the agent's core does without."""

import json
import time
from queue import Empty
from types import TracebackType
from typing import Any, Final, Self

from edge.measure.calls import NS_PER_MS, Calls
from edge.measure.subject import Facts, Kind, MeasureError
from edge.trainer_child import TrainerChild
from edge.training.task import TrainerError
from edge.work import TRAINABLE
from protocol import networks
from protocol.energy import training_energy_mj
from protocol.errors import ProtocolError

PATIENCE_S: Final = 600.0
"""Longer than its time no window lasts but where a single step takes minutes; a small board swaps before that."""


class TrainingStep:
    """One step of the trainer at one precision.

    Args:
        architecture: spec string of the network.
        precision: one that the trainer has.
        batch: pictures in a step.
        threads: of torch.

    Raises:
        MeasureError: there is no such network, or it cannot be trained at that precision.
    """

    def __init__(self, architecture: str, precision: str, batch: int, threads: int = 1) -> None:
        try:
            network = networks.parse(architecture)
        except ProtocolError as error:
            raise MeasureError(f"--train {architecture}: {error}") from error
        if precision not in TRAINABLE:
            raise MeasureError(f"training at precision {precision!r}: expected one of {', '.join(TRAINABLE)}")
        self.facts = Facts(
            Kind.TRAINING, network.spec, precision, batch, "", None, training_energy_mj(network, samples=batch)
        )
        self.load_ms = self.first_call_ms = 0.0
        self._threads = threads
        self._child: TrainerChild | None = None

    def __enter__(self) -> Self:
        began_ns = time.perf_counter_ns()
        facts = self.facts
        try:
            self._child = TrainerChild("edge.training.stepping", {"threads": self._threads, "nice": 0})
        except TrainerError as error:
            raise MeasureError(f"{facts.label}: {error}") from error
        try:
            self._ask(architecture=facts.architecture, precision=facts.precision, batch=facts.batch)
            self.load_ms = (time.perf_counter_ns() - began_ns) / NS_PER_MS
            self.first_call_ms = self.run(0, 1).p50_ms
        except BaseException:
            self._child.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.stop()

    def run(self, for_s: float, at_least: int) -> Calls:
        """See `Subject.run`."""
        return Calls.from_plain(self._ask(for_s=for_s, at_least=at_least))

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._child is not None, "a subject runs inside its block"
        try:
            self._child.send(json.dumps(request))
            answer = self._child.answer(PATIENCE_S + request.get("for_s", 0))
        except TrainerError as error:
            raise MeasureError(f"{self.facts.label}: {error}") from error
        except Empty:
            raise MeasureError(f"{self.facts.label}: no answer within {PATIENCE_S:g} s") from None
        if answer["event"] == "error":
            raise MeasureError(f"{self.facts.label}: {answer['message']}")
        return answer
