"""From pictures to answers, batch by batch, with the model of the moment."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from edge.data import DataError
from edge.inference.models import Models
from edge.inference.sources import Item
from edge.runtime import ModelSlot, Serving
from edge.session import Pictures
from protocol.precision import Float32

_NS_PER_MS: Final = 1e6

NamesOf = Callable[[int], tuple[str, ...] | None]
"""What so many classes are called here, None where nobody says."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A class, by name or else by index, and its probability by softmax."""

    label: str | int
    confidence: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What is on one picture.

    Attributes:
        picture: its name.
        guesses: the likeliest classes, the first first.
        latency_ms: of the inference it was part of, all of its batch together.
        slot: the model that answered.
    """

    picture: str
    guesses: tuple[Guess, ...]
    latency_ms: float
    slot: ModelSlot


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be read, and why."""

    picture: str
    reason: str


@dataclass(frozen=True)
class Classifier:
    """Answers for one picture after another.

    Attributes:
        models: asked before each batch, and never within one.
        names_of: asked once for each answer's model.
        batch: pictures in one inference; the last may have fewer.
        top: guesses of each answer.
    """

    models: Models
    names_of: NamesOf
    batch: int
    top: int

    def answers(self, items: Iterator[Item]) -> Iterator[list[Answer | Skipped]]:
        """Those of each batch, in the order of `items`.

        Raises:
            NoModel: there is none.
            InferenceFailed: no memory for so many pictures at once.
        """
        while taken := self._next_batch(items):
            yield taken

    def _next_batch(self, items: Iterator[Item]) -> list[Answer | Skipped]:
        serving = self.models()
        outcomes: list[str | Skipped] = []
        pictures: list[Pictures] = []
        for item in islice(items, self.batch):
            try:
                pictures.append(item.read(serving.slot.network.input_shape))
                outcomes.append(item.name)
            except DataError as error:
                outcomes.append(Skipped(item.name, str(error)))
        answered = iter(self._infer(serving, [name for name in outcomes if isinstance(name, str)], pictures))
        return [one if isinstance(one, Skipped) else next(answered) for one in outcomes]

    def _infer(self, serving: Serving, names: list[str], pictures: list[Pictures]) -> Iterator[Answer]:
        if not pictures:
            return
        pictures_NCHW = np.stack(pictures)
        started_ns = time.perf_counter_ns()
        logits_NC = serving.session.infer(pictures_NCHW)
        latency_ms = (time.perf_counter_ns() - started_ns) / _NS_PER_MS
        labels = self.names_of(serving.slot.network.classes)
        for name, probabilities_C in zip(names, softmax(logits_NC), strict=True):
            best = np.argsort(-probabilities_C, kind="stable")[: self.top].tolist()
            guesses = (Guess(labels[index] if labels else index, float(probabilities_C[index])) for index in best)
            yield Answer(name, tuple(guesses), latency_ms, serving.slot)


def softmax(logits_NC: Float32) -> Float32:
    """exp(l) / Σ exp(l) over the classes; the largest is taken off first, so that nothing overflows."""
    exponentials_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return exponentials_NC / exponentials_NC.sum(axis=1, keepdims=True)
