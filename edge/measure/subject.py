"""What can be measured: something that loads once and is then called again and again."""

from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from edge.measure.calls import Calls


class MeasureError(Exception):
    """It cannot be measured; the message says what, with which value, and what was expected."""


class Kind(StrEnum):
    """What one call is."""

    INFERENCE = "inference"
    """One batch through a model file in ONNX Runtime."""
    TRAINING = "training"
    """One step of the trainer: forward, backward, optimizer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a subject is.

    Attributes:
        kind: what one call is.
        architecture: spec string of its network.
        precision: `fp32` or `WxAy`.
        batch: pictures in one call.
        digest: SHA-256 of the model file in hex; empty for training.
        accuracy: of that very file, as its exporter found it; None where it was not told.
        modelled_mj: energy of one call by `protocol.energy`.
    """

    kind: Kind
    architecture: str
    precision: str
    batch: int
    digest: str
    accuracy: float | None
    modelled_mj: float

    @property
    def label(self) -> str:
        """As in tables, for example `W8A8, batch 1` or `training fp32, batch 32`."""
        training = "training " if self.kind is Kind.TRAINING else ""
        return f"{training}{self.precision}, batch {self.batch}"


class Subject(Protocol):
    """Loaded when the block is entered, gone when it is left.

    Attributes:
        facts: what it is.
        load_ms: from nothing to ready, known inside the block; first_call_ms likewise.
    """

    facts: Facts
    load_ms: float
    first_call_ms: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, for_s: float, at_least: int) -> Calls:
        """Calls for so many seconds, and so many at least.

        Raises:
            MeasureError: it broke.
        """
        ...
