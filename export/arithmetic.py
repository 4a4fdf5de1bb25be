"""The integer arithmetic that every exported network obeys, bit for bit, on every processor.

    accumulator = Σ q_x · q_w + bias                          int32, exact
    y           = clip(rint(float32(accumulator) · M) + z)    rint rounds half to even
    M           = float32(float32(s_x · s_w) / s_y)           one per output channel

Activations are stored as uint8. After a ReLU z = 0; a residual branch before its add is signed, z = 128. Weight
integers are symmetric, their zero point is always 0. The add of two branches of one scale is
clip(a − z_a + b − z_b, 0, 255); average pooling is clip(rint(float32(Σ q_x) · M)) with M = float32(s_x / (HW · s_y)).

ONNX Runtime evaluates QLinearConv exactly so on x86 and ARM (DECISIONS.md, 3).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from protocol.architecture import Kind, Layer
from protocol.precision import Float32, Precision

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

MAX_ACTIVATION: Final = 255
SIGNED_ZERO_POINT: Final = 128


def require_supported(precision: Precision) -> None:
    """Check that the exporter writes this precision.

    Raises:
        ExportError: it is neither fp32 nor W1A8 to W8A8.
    """
    if not precision.is_float and (precision.weight_bits > 8 or precision.activation_bits != 8):
        raise ExportError(f"precision {precision}: the exporter writes fp32 and W1A8 to W8A8")


def zero_point(layer: Layer) -> int:
    """The stored value that stands for 0 in a layer's output."""
    return SIGNED_ZERO_POINT if layer.signed else 0


def multiplier(input_step: np.float32, scale_O: Float32, output_step: np.float32) -> Float32:
    """M of a convolution, float32[O], rounded after the product and after the quotient as ONNX Runtime does."""
    return ((input_step * scale_O).astype(np.float32) / output_step).astype(np.float32)


def pool_multiplier(input_step: np.float32, pixels: int, output_step: np.float32) -> np.float32:
    """M of an average over `pixels` pixels, from the exact quotient."""
    return np.float32(float(input_step) / (pixels * float(output_step)))


def requantize(accumulator: npt.NDArray[Any], factor: Float32 | np.float32, zero: int) -> UInt8:
    """Int32 sums to uint8 activations; `factor` broadcasts over the sums."""
    with np.errstate(over="ignore"):  # infinity clips like any large value
        levels = np.rint(accumulator.astype(np.float32) * factor)
    return (np.clip(levels, -zero, MAX_ACTIVATION - zero) + zero).astype(np.uint8)


def add(left: UInt8, left_zero: int, right: UInt8, right_zero: int) -> UInt8:
    """The residual add of two branches and its ReLU, all of one scale."""
    total = left.astype(np.int32) - left_zero + right - right_zero
    return np.clip(total, 0, MAX_ACTIVATION).astype(np.uint8)


def pixels(layer: Layer) -> int:
    """How many pixels global average pooling sums.

    Raises:
        ExportError: the layer is no average pooling.
    """
    if layer.kind is not Kind.AVGPOOL:
        raise ExportError(f"layer {layer.name} is {layer.kind}: expected {Kind.AVGPOOL}")
    return layer.in_shape[1] * layer.in_shape[2]
