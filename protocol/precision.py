"""Precisions `fp32` and `WxAy`, and the integer grids they stand for.

Weights live on a symmetric grid of odd or all integers, so that a channel may change its sign when normalisation
with a negative gain is folded in. At 3 to 8 bits the grid has a zero (mid-tread); at 1 and 2 bits it has none
(mid-rise: {−1, 1} and {−3, −1, 1, 3}), which quantizes a bell-shaped weight with less error than {−1, 0, 1}.

At 8 bits the integers stay in [−64, 64]: AVX2 without VNNI adds two u8·s8 products in int16 and saturates beyond,
255·64·2 = 32640 < 32767 (measured in DECISIONS.md, 3). What is trained is what is exported, so the grid says so.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from protocol.errors import Malformed, Unsupported

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]

WEIGHT_BITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)
ACTIVATION_BITS: Final = (1, 2, 3, 4, 8, 32)
MAX_WEIGHT_CODE: Final = 64
"""The largest weight integer at 8 bits (see the module docstring)."""

_NAME = re.compile(r"W(\d{1,2})A(\d{1,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Precision:
    """Bits of a weight and of an activation. Parsed from and printed as `fp32`, `W8A8`, `W1A8` and so on.

    Raises:
        Unsupported: for a width that no grid of this version has.
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        if self.weight_bits not in WEIGHT_BITS or self.activation_bits not in ACTIVATION_BITS:
            raise Unsupported(
                f"precision W{self.weight_bits}A{self.activation_bits}: weights have {WEIGHT_BITS} bits,"
                f" activations {ACTIVATION_BITS}"
            )

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `fp32` or `WxAy`."""
        if name == "fp32":
            return cls(32, 32)
        match = _NAME.fullmatch(name)
        if match is None:
            raise Unsupported(f"precision {name[:32]!r}: expected fp32 or WxAy, for example W4A8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return "fp32" if self.is_float else f"W{self.weight_bits}A{self.activation_bits}"

    @property
    def is_float(self) -> bool:
        """Whether nothing is quantized."""
        return self.weight_bits == 32 and self.activation_bits == 32

    def bits_of(self, *, pinned: bool) -> int:
        """Weight bits of a layer: `pinned` layers (first convolution, classifier) never go below 8."""
        return max(8, self.weight_bits) if pinned else self.weight_bits


FP32: Final = Precision(32, 32)

MAX_PROFILES: Final = 8
"""Precisions that one payload can carry profiles of; a fleet that needs more can send two."""


@lru_cache(maxsize=64)
def parse_several(names: str) -> tuple[Precision, ...]:
    """Read precisions joined by `+`, for example `W8A8+W4A8`: one to `MAX_PROFILES`, each once, in canonical form.

    Raises:
        Malformed: one comes twice or is not spelled canonically.
        Unsupported: there are too many, or one does not exist.
    """
    parts = names.split("+")
    if len(parts) > MAX_PROFILES:
        raise Unsupported(f"{len(parts)} precisions: expected at most {MAX_PROFILES}")
    precisions = tuple(Precision.parse(part) for part in parts)
    if len(set(precisions)) < len(precisions) or join(precisions) != names:
        raise Malformed(f"precisions {names[:64]!r}: expected each once, in canonical form")
    return precisions


def join(precisions: Iterable[Precision]) -> str:
    """Precisions as `parse_several` reads them."""
    return "+".join(map(str, precisions))


def is_mid_rise(bits: int) -> bool:
    """Whether the grid of `bits` has no zero."""
    return bits <= 2


def activation_range(bits: int, *, signed: bool) -> tuple[int, int]:
    """Smallest and largest activation integer: [0, 2^b − 1] after a ReLU, [−2^(b−1), 2^(b−1) − 1] elsewhere."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def max_code(bits: int) -> int:
    """The largest weight integer at `bits`: 64 at 8, 2^(b−1) − 1 at 3 to 7, 3 at 2, 1 at 1."""
    if bits == 8:
        return MAX_WEIGHT_CODE
    return (1 << bits) - 1 if is_mid_rise(bits) else (1 << (bits - 1)) - 1


def code_book(bits: int) -> Int8:
    """Every weight integer at `bits` in rising order, int8[levels]."""
    limit = max_code(bits)
    return np.arange(-limit, limit + 1, 2 if is_mid_rise(bits) else 1, dtype=np.int8)


def quantize_weight(weight_OX: Float32, step_O: Float32, bits: int) -> Int8:
    """The integer definition of a quantized weight, which trainer and exporter share.

    Mid-tread: clip(round_half_even(w/s), −Q, Q). Mid-rise: clip(2·⌊w/(2s)⌋ + 1, −Q, Q), which is sign(w) at one
    bit with sign(0) = +1. Arithmetic is float32 throughout.

    Args:
        weight_OX: float32[O, …], output channel first.
        step_O: float32[O], positive.
        bits: 1 to 8.

    Returns:
        int8 of the weight's shape.
    """
    step = step_O.reshape(-1, *(1,) * (weight_OX.ndim - 1))
    limit = np.float32(max_code(bits))
    if is_mid_rise(bits):
        codes = 2 * np.floor(weight_OX / (2 * step)) + 1
    else:
        codes = np.rint(weight_OX / step)
    return np.clip(codes, -limit, limit).astype(np.int8)


MIN_STEP: Final = np.float32(2.0**-24)
"""Steps below this lose to float32 rounding; a dead channel of zeros gets it."""


def binary_step(weight_OX: Float32) -> Float32:
    """The per-channel scale of 1-bit weights, mean|w| as float32[O] (XNOR-Net, Rastegari et al., ECCV 2016)."""
    mean_O = np.abs(weight_OX).reshape(weight_OX.shape[0], -1).mean(axis=1, dtype=np.float64)
    return np.maximum(mean_O.astype(np.float32), MIN_STEP)


def step_of(log_step: Float32) -> Float32:
    """Steps from their logarithms, through float64: a float32 exponential differs in its last bit between libraries."""
    return np.exp(log_step.astype(np.float64)).astype(np.float32)


_FIT_FRACTIONS: Final = tuple(0.96**k for k in range(50))
"""Of the step that clips nothing, down to an eighth: the best 2-bit step of a bell-shaped weight is a third of it."""


def fitted_step(weight_OX: Float32, bits: int) -> Float32:
    """The step of least squared error for a weight as it is, float32[O], by search over `_FIT_FRACTIONS`.

    Where training starts, and the strongest step there is without training (R. Banner et al., "Post Training 4-bit
    Quantization", NeurIPS 2019, arXiv 1810.05723, searches clips in the same way). At 1 bit it is mean|w|.
    """
    rows_OX = weight_OX.reshape(len(weight_OX), -1)
    if bits == 1:
        return binary_step(weight_OX)
    widest_O = np.maximum(np.abs(rows_OX).max(axis=1) / np.float32(max_code(bits)), MIN_STEP)
    best_O, least_O = widest_O, np.full(len(rows_OX), np.inf)
    for fraction in _FIT_FRACTIONS:
        step_O = np.maximum(widest_O * np.float32(fraction), MIN_STEP)
        restored_OX = quantize_weight(rows_OX, step_O, bits) * step_O[:, None]
        error_O = np.square(restored_OX - rows_OX).sum(axis=1)
        best_O = np.where(error_O < least_O, step_O, best_O)
        least_O = np.minimum(error_O, least_O)
    return best_O.astype(np.float32)
