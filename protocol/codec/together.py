"""Small tensors that travel together: gains, offsets, steps and moments, a few hundred values each.

What is one to a tensor comes first, for all of them, then their values, so that a hundred tensors are read in a handful
of operations. Each keeps a range or an exponent of its own; values are laid out as the codecs of one tensor do it:

    fp32          float32 values
    uniform:8     float32 minimum and maximum of each tensor; then a byte a value (`uniform`)
    half          int8 exponent of each tensor; then a float16 a value (`half`)
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from protocol.codec.coded import Coded, Dense
from protocol.codec.half import Sizes, exponents_of, from_halves, to_halves
from protocol.codec.uniform import drawn
from protocol.errors import Malformed
from protocol.precision import Float32, UInt8
from protocol.reader import Reader

_TOP = 255


class Grouped(Coded, Protocol):
    """The N finite values of S small tensors."""

    def part(self, tensors: slice, place: slice) -> "Grouped":
        """Some tensors alone, whose values lie at that place."""
        ...


@dataclass(frozen=True, slots=True)
class Ranged:
    """A byte a value between its tensor's ends: float32(code · step + low), computed in float64."""

    low_S: npt.NDArray[np.float64]
    high_S: npt.NDArray[np.float64]
    sizes_S: Sizes
    codes_N: UInt8

    @property
    def step_S(self) -> npt.NDArray[np.float64]:
        """What a code is worth, float64[S]."""
        return (self.high_S - self.low_S) / _TOP

    def values(self) -> Float32:
        """float32[N]."""
        values_N = self.codes_N * np.repeat(self.step_S, self.sizes_S)
        values_N += np.repeat(self.low_S, self.sizes_S)
        return values_N.astype(np.float32)

    def norm(self) -> float:
        """Euclidean norm."""
        return Dense(self.values()).norm()

    def peak(self) -> float:
        """The end that lies furthest out: no value lies further, since ends are float32 and rounding is monotone."""
        return float(np.maximum(self.high_S.max(), -self.low_S.min()))

    def part(self, tensors: slice, place: slice) -> "Ranged":
        """Some tensors' ends and codes."""
        return Ranged(self.low_S[tensors], self.high_S[tensors], self.sizes_S[tensors], self.codes_N[place])


class GroupCodec(Protocol):
    """Turns the values of S tensors, one after the other, into bytes and back."""

    def encode(self, values_N: Float32, sizes_S: Sizes, rng: np.random.Generator) -> bytes | memoryview:
        """Encode finite values; `sizes_S`, at least 1 each, add up to N."""
        ...

    def read(self, reader: Reader, sizes_S: Sizes) -> Grouped:
        """Read N values.

        Raises:
            Incomplete: the bytes end too early.
            Malformed: a range or an exponent is none, or a value is not finite.
        """
        ...


class Floats:
    """Values as they are."""

    def encode(self, values_N: Float32, sizes_S: Sizes, rng: np.random.Generator) -> memoryview:  # noqa: ARG002
        """The values' own bytes."""
        return np.ascontiguousarray(values_N, dtype="<f4").data.cast("B")

    def read(self, reader: Reader, sizes_S: Sizes) -> Dense:
        """As they are."""
        return Dense(reader.floats(int(sizes_S.sum()), "side tensors"))


class Ranges:
    """A byte a value over each tensor's own range, rounded stochastically."""

    def encode(self, values_N: Float32, sizes_S: Sizes, rng: np.random.Generator) -> bytes:
        """Round with `rng`."""
        starts_S = np.cumsum(sizes_S) - sizes_S
        low_S, high_S = np.minimum.reduceat(values_N, starts_S), np.maximum.reduceat(values_N, starts_S)
        span_S = high_S.astype(np.float64) - low_S
        scale_S = np.divide(_TOP, span_S, out=np.zeros_like(span_S), where=span_S > 0)
        position_N = (values_N - np.repeat(low_S.astype(np.float64), sizes_S)) * np.repeat(scale_S, sizes_S)
        codes_N = np.minimum(position_N + drawn(rng, values_N.size), _TOP).astype(np.uint8)
        return np.stack([low_S, high_S], axis=1).astype("<f4").tobytes() + codes_N.tobytes()

    def read(self, reader: Reader, sizes_S: Sizes) -> Ranged:
        """Ends and codes; any byte is one."""
        ends_2S = reader.floats(2 * sizes_S.size, "ranges of side tensors").reshape(-1, 2).T
        low_S, high_S = np.ascontiguousarray(ends_2S, dtype=np.float64)
        if (low_S > high_S).any():
            wrong = int((low_S > high_S).argmax())
            raise Malformed(f"range of side tensor {wrong}: minimum {low_S[wrong]} is above maximum {high_S[wrong]}")
        codes_N = np.frombuffer(reader.take(int(sizes_S.sum()), "bytes of side tensors"), dtype=np.uint8)
        return Ranged(low_S, high_S, sizes_S, codes_N)


class Halves:
    """float16 values with an exponent for each tensor."""

    def encode(self, values_N: Float32, sizes_S: Sizes, rng: np.random.Generator) -> bytes:  # noqa: ARG002
        """Round to nearest half after scaling."""
        peaks_S = np.maximum.reduceat(np.abs(values_N), np.cumsum(sizes_S) - sizes_S)
        exponents_S = exponents_of(peaks_S)
        return exponents_S.tobytes() + to_halves(values_N, np.repeat(exponents_S, sizes_S)).tobytes()

    def read(self, reader: Reader, sizes_S: Sizes) -> Dense:
        """Spread out."""
        what = "half floats of side tensors"
        exponents_S = np.frombuffer(reader.take(sizes_S.size, what), dtype=np.int8)
        halves_N = np.frombuffer(reader.take(2 * int(sizes_S.sum()), what), dtype="<f2")
        return Dense(from_halves(halves_N, exponents_S, what, sizes_S))
