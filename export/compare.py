"""Two exports of one task on the same pictures: where they agree, which pictures change class, which is faster.

Speed is processor time of one thread, one picture at a time, the two models taking turns, so that whatever the
machine's neighbours do they do to both; the ratio is that of turns, with its quartiles. For figures to publish, measure
on the device: `bitfleet-edge measure`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export import ort
from export.arithmetic import UInt8
from export.errors import ExportError
from export.writer import LOGITS
from protocol.architecture import Architecture
from protocol.precision import Float32

BATCH: Final = 250
WARM_UP: Final = 5
TURNS: Final = 31
"""Of each model; odd, so that a median is one of them."""
_NS_PER_MS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Flip:
    """A picture that the two see differently; `label` is what it is, None if nobody says."""

    picture: int
    first: int
    second: int
    label: int | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Processor time of one picture, and how many times as fast the second is: median and quartiles of the turns."""

    first_ms: float
    second_ms: float
    ratio: float
    quartiles: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second model against the first.

    Attributes:
        pictures: how many were shown.
        agreement: share of them that both give one class.
        flips: the others, in order.
        largest_difference: between two logits of the same picture and class.
        first_accuracy, second_accuracy: shares right, None without labels.
        speed: of both.
    """

    pictures: int
    agreement: float
    flips: tuple[Flip, ...]
    largest_difference: float
    first_accuracy: float | None
    second_accuracy: float | None
    speed: Speed

    @property
    def repaired(self) -> int:
        """Flips from wrong to right."""
        return sum(flip.second == flip.label for flip in self.flips)

    @property
    def broken(self) -> int:
        """Flips from right to wrong."""
        return sum(flip.first == flip.label for flip in self.flips)


def require_alike(first: Architecture, second: Architecture) -> None:
    """Raise ExportError unless two networks read the same pictures and name the same classes."""
    for name in ("input_shape", "classes"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise ExportError(f"the first model has {name} {one}, the second {other}: expected the same task")


def compare(
    first: bytes, second: bytes, pictures_NCHW: UInt8, labels_N: npt.NDArray[np.integer[Any]] | None = None
) -> Comparison:
    """Show pictures to two models.

    Args:
        first: an exported file.
        second: another, of the same task (`require_alike`).
        pictures_NCHW: uint8[N, C, H, W], at least one.
        labels_N: their classes.

    Raises:
        ExportError: ONNX Runtime refuses one of them.
    """
    sessions = [ort.session(model) for model in (first, second)]
    one_NK, other_NK = (_logits(session, pictures_NCHW) for session in sessions)
    one_N, other_N = one_NK.argmax(axis=1), other_NK.argmax(axis=1)
    flips = tuple(
        Flip(int(n), int(one_N[n]), int(other_N[n]), None if labels_N is None else int(labels_N[n]))
        for n in np.flatnonzero(one_N != other_N)
    )
    return Comparison(
        pictures=len(pictures_NCHW),
        agreement=1.0 - len(flips) / len(pictures_NCHW),
        flips=flips,
        largest_difference=float(np.abs(one_NK - other_NK).max()),
        first_accuracy=None if labels_N is None else float((one_N == labels_N).mean()),
        second_accuracy=None if labels_N is None else float((other_N == labels_N).mean()),
        speed=_speed(*(_single(session, pictures_NCHW) for session in sessions)),
    )


def _logits(session: Any, pictures_NCHW: UInt8) -> Float32:
    parts = (pictures_NCHW[start : start + BATCH] for start in range(0, len(pictures_NCHW), BATCH))
    return np.concatenate([ort.run(session, part, [LOGITS])[0] for part in parts])


def _single(session: Any, pictures_NCHW: UInt8) -> Callable[[int], float]:
    """What shows picture n alone, and says the milliseconds of processor time that took."""

    def show(number: int) -> float:
        picture_1CHW = pictures_NCHW[number % len(pictures_NCHW)][None]
        started_ns = time.thread_time_ns()
        ort.run(session, picture_1CHW, [LOGITS])
        return max(1, time.thread_time_ns() - started_ns) / _NS_PER_MS

    return show


def _speed(first: Callable[[int], float], second: Callable[[int], float]) -> Speed:
    turns_T2 = np.array([(first(number), second(number)) for number in range(WARM_UP + TURNS)])[WARM_UP:]
    low, middle, high = np.percentile(turns_T2[:, 0] / turns_T2[:, 1], (25, 50, 75))
    first_ms, second_ms = np.median(turns_T2, axis=0)
    return Speed(float(first_ms), float(second_ms), float(middle), (float(low), float(high)))
