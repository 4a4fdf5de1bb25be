"""The integer arithmetic that every exported network obeys, bit for bit, on every processor.

    accumulator = Σ (q_x − z_x) · q_w + bias                  int32, exact
    y           = clip(rint(float32(accumulator) · M) + z)    rint rounds half to even
    M           = float32(float32(s_x · s_w) / s_y)           one per output channel

Activations are stored as uint8: value = s · (q − z). After a ReLU z = 0; a residual branch before its add is signed,
z = 128. b activation bits clip q to 2^b levels from z − 2^(b−1) (signed) or 0 on. Weight integers are symmetric, their
zero point is always 0. The add of two branches of one scale is clip(a − z_a + b − z_b + z); average pooling is
clip(rint(float32(Σ (q_x − z_x)) · M) + z) with M = float32(s_x / (HW · s_y)).

Narrowing a signed stream has a zero of its own. At 2 to 4 bits it is learned as an offset β: z = clip(rint(−β/s), 0,
2^b − 1) (LSQ+, Y. Bhalgat et al., CVPR Workshops 2020, arXiv 2004.09576). At 1 bit the values are ±s, stored as 2 and 0
around z = 1, and a convolution pads with −s rather than with 0, which XNOR kernels do not have.

ONNX Runtime evaluates QLinearConv exactly so on x86 and ARM (DECISIONS.md, 3).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from protocol.architecture import INPUT_STEP, Kind, Layer
from protocol.precision import Float32, Precision, activation_range
from protocol.weights import NESTED_BITS

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

MAX_STORED: Final = 255
SIGNED_ZERO_POINT: Final = 128
ACTIVATION_BITS: Final = (1, 2, 3, 4, 8)
"""Widths of activations that are written."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How activations are stored: value = step · (stored − zero), stored in [low, high].

    Attributes:
        step: float32, positive.
        zero: the stored value that stands for 0.
        low: the smallest stored value.
        high: the largest stored value.
        pad: the stored value that a convolution pads with.
    """

    step: np.float32
    zero: int = 0
    low: int = 0
    high: int = MAX_STORED
    pad: int = 0

    @property
    def is_narrow(self) -> bool:
        """Whether uint8 has values that are never stored."""
        return (self.low, self.high) != (0, MAX_STORED)


def picture_coding(zero: int) -> Coding:
    """Pictures are activations of 8 bits around a grey of their network's."""
    return Coding(np.float32(INPUT_STEP), zero, pad=zero)


def plain_coding(step: np.float32, bits: int, *, signed: bool) -> Coding:
    """Activations of a group: around 128 if signed, else from 0."""
    zero = SIGNED_ZERO_POINT if signed else 0
    low, high = activation_range(bits, signed=signed)
    return Coding(step, zero, zero + low, zero + high, zero)


def offset_zero(step: np.float32, bits: int, offset: np.float32) -> int:
    """The zero that a learned offset β gives a narrowed signed stream at 2 to 4 bits."""
    with np.errstate(over="ignore"):  # an offset beyond every level clips
        return int(np.clip(np.rint(-offset / step), 0, (1 << bits) - 1))


def offset_coding(step: np.float32, bits: int, zero: int) -> Coding:
    """A narrowed signed stream at 2 to 4 bits, around its learned zero."""
    return Coding(step, zero, 0, (1 << bits) - 1, zero)


def binary_coding(step: np.float32) -> Coding:
    """A narrowed signed stream at 1 bit: −step is stored as 0, +step as 2."""
    return Coding(step, zero=1, low=0, high=2, pad=0)


def require_supported(precision: Precision, *, nested: bool = False) -> None:
    """Check that the exporter writes this precision.

    Raises:
        ExportError: it is neither fp32 nor W1 to W8 with A1, A2, A3, A4 or A8, or nested codes have no such width.
    """
    if precision.is_float:
        return
    if precision.weight_bits > 8 or precision.activation_bits not in ACTIVATION_BITS:
        raise ExportError(f"precision {precision}: the exporter writes fp32 and W1 to W8 with A1, A2, A3, A4 or A8")
    if nested and precision.weight_bits not in NESTED_BITS:
        raise ExportError(f"precision {precision}: nested codes have {NESTED_BITS} bits")


def multiplier(input_step: np.float32, scale_O: Float32, output_step: np.float32) -> Float32:
    """M of a convolution, float32[O], rounded after the product and after the quotient as ONNX Runtime does."""
    with np.errstate(over="ignore"):  # infinity is refused with the layer's name
        return ((input_step * scale_O).astype(np.float32) / output_step).astype(np.float32)


def pool_multiplier(input_step: np.float32, pixels: int, output_step: np.float32) -> np.float32:
    """M of an average over `pixels` pixels, from the exact quotient."""
    return np.float32(float(input_step) / (pixels * float(output_step)))


def requantize(accumulator: npt.NDArray[Any], factor: Float32 | np.float32, coding: Coding) -> UInt8:
    """Int32 sums to uint8 activations; `factor` broadcasts over the sums."""
    with np.errstate(over="ignore"):  # infinity clips like any large value
        return store(accumulator.astype(np.float32) * factor, coding)


def store(levels: npt.NDArray[np.floating[Any]], coding: Coding) -> UInt8:
    """Values in units of a step, rounded half to even and clipped to what is stored."""
    rounded = np.clip(np.rint(levels), coding.low - coding.zero, coding.high - coding.zero)
    return (rounded + coding.zero).astype(np.uint8)


def dequantize(stored: UInt8, coding: Coding) -> Float32:
    """The float32 values that are stored, as DequantizeLinear gives them."""
    return (stored.astype(np.float32) - np.float32(coding.zero)) * coding.step


def recode(x: UInt8, coding_in: Coding, coding: Coding, threshold: Float32 | None) -> UInt8:
    """Activations stored again in fewer bits; `threshold`, which broadcasts over x, is that of ±step at 1 bit."""
    values = dequantize(x, coding_in)
    if threshold is None:
        return store(values / coding.step, coding)
    return np.where(values >= threshold, np.uint8(coding.high), np.uint8(coding.low))


def add(left: UInt8, left_coding: Coding, right: UInt8, right_coding: Coding, coding: Coding) -> UInt8:
    """The residual add of two branches and its ReLU, all of one step."""
    total = left.astype(np.int32) - left_coding.zero + right - right_coding.zero + coding.zero
    return np.clip(total, coding.low, coding.high).astype(np.uint8)


def pixels(layer: Layer) -> int:
    """How many pixels global average pooling sums.

    Raises:
        ExportError: the layer is no average pooling.
    """
    if layer.kind is not Kind.AVGPOOL:
        raise ExportError(f"layer {layer.name} is {layer.kind}: expected {Kind.AVGPOOL}")
    return layer.in_shape[1] * layer.in_shape[2]
