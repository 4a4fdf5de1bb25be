"""What one picture takes on a device: measured there, predicted from what was measured, or modelled.

A prediction scales what was measured by work. Weights of fewer bits are decoded when a model is loaded, so all integer
precisions of a network run the same kernels in the same time; where the arithmetic is another, of floats, integers or
bits, bit operations tell; another network at the same precision is scaled by multiply-adds. Real kernels follow none of
this exactly, so the nearest in work is taken, and the figure says what it is of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from math import log

from export.measured import Measurement
from protocol.architecture import Architecture
from protocol.energy import bops, inference_energy
from protocol.precision import Precision


class Source(StrEnum):
    """How a figure was obtained; they are never mixed."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    MODELLED = "modelled"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure for one picture, in the unit of whoever asked; `basis` says what it rests on."""

    value: float
    source: Source
    basis: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one picture; without a measurement there is no latency."""

    latency_ms: Figure | None
    energy_mj: Figure


def predict(architecture: Architecture, precision: Precision, measured: Sequence[Measurement] = ()) -> Prediction:
    """Latency and energy of one picture, each by the best that is known."""
    modelled = inference_energy(architecture, precision).total_mj
    latency = _figure(architecture, precision, measured, lambda each: each.latency_ms)
    energy = _figure(architecture, precision, measured, lambda each: each.energy_mj)
    return Prediction(latency, energy or Figure(modelled, Source.MODELLED, "protocol.energy, arithmetic and DRAM"))


def _figure(
    architecture: Architecture,
    precision: Precision,
    measured: Sequence[Measurement],
    of: Callable[[Measurement], float | None],
) -> Figure | None:
    known = [(each, value) for each in measured if (value := of(each)) is not None]
    same = [pair for pair in known if _is(pair[0], architecture, precision)]
    if same:
        nearest, value = min(same, key=lambda pair: pair[0].batch)
        return Figure(value, Source.MEASURED, nearest.label)
    scaled = [(*pair, scale) for pair in known if (scale := _scale(pair[0], architecture, precision)) is not None]
    if not scaled:
        return None
    ours = architecture.spec
    nearest, value, scale = min(
        scaled, key=lambda each: (each[0].architecture.spec != ours, abs(log(each[2])), each[0].batch)
    )
    if nearest.architecture.spec != ours:
        kind = "by multiply-adds"
    elif _arithmetic(nearest.precision) is _arithmetic(precision):
        kind = "as the same kernels run"
    else:
        kind = "by bit operations"
    return Figure(value * scale, Source.PREDICTED, f"{nearest.label}, times {scale:.3g} {kind}")


def _is(each: Measurement, architecture: Architecture, precision: Precision) -> bool:
    return each.architecture.spec == architecture.spec and each.precision == precision


def _scale(each: Measurement, architecture: Architecture, precision: Precision) -> float | None:
    """How much more work ours is; None where the two do not compare."""
    if each.architecture.spec == architecture.spec:
        if _arithmetic(each.precision) is _arithmetic(precision):
            return 1.0
        return bops(architecture, precision) / bops(each.architecture, each.precision)
    if each.precision == precision:
        return _multiply_adds(architecture, precision) / _multiply_adds(each.architecture, precision)
    return None


class _Arithmetic(Enum):
    """What a processor computes with."""

    FLOATS = auto()
    INTEGERS = auto()
    BITS = auto()


def _arithmetic(precision: Precision) -> _Arithmetic:
    if precision.is_float:
        return _Arithmetic.FLOATS
    of_bits = precision.weight_bits == precision.activation_bits == 1
    return _Arithmetic.BITS if of_bits else _Arithmetic.INTEGERS


def _multiply_adds(architecture: Architecture, precision: Precision) -> int:
    return sum(layer.multiply_adds for layer in architecture.at(precision).layers)
