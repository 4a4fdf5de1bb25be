"""The two contracts of the pipeline; `tests/codec_contract.py` and `tests/coder_contract.py` are their test classes.

    values float32[N] ── TensorCodec.encode ──▶ bytes ── TensorCodec.read ──▶ Coded ── values ──▶ float32[N]
                                                  head (scales, ranges, centroids), then codes
                                codes uint8[M] ── Coder ──▶ bytes

A codec says what the codes mean, a coder only how they lie in the bytes: without loss, and knowing nothing but how many
there are and how many different ones there can be.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from protocol.codec.coded import Coded
from protocol.codec.run import RunLayout
from protocol.precision import Float32, UInt8
from protocol.reader import Reader


class TensorCodec(Protocol):
    """Turns the values of one tensor into bytes and back, exactly as its docstring lays them out."""

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes | memoryview:
        """Encode finite float32[N], N ≥ 1.

        Args:
            values_N: the values.
            rng: of stochastic rounding; deterministic codecs leave it alone.
            seed: of what both sides must draw alike, such as a rotation; below 2⁶⁴.
        """
        ...

    def read(self, reader: Reader, count: int, seed: int) -> Coded:
        """Read float32[count]; memory is a small multiple of the tensor's, which the caller knows from its table.

        Raises:
            Incomplete: the bytes end too early.
            Malformed: the bytes break the layout, or a value is not finite.
        """
        ...


@runtime_checkable
class RunCodec(TensorCodec, Protocol):
    """A codec whose tensors may be read all at once."""

    def run(self, counts: Sequence[int], seeds: Sequence[int]) -> RunLayout | None:
        """How tensors with so many values and these seeds lie one after the other; None to read them one by one."""
        ...


@runtime_checkable
class StepCodec(TensorCodec, Protocol):
    """A codec whose step may be announced, for each tensor its own."""

    def with_step(self, step: float) -> TensorCodec:
        """The codec of a tensor with this step, zero or more."""
        ...


class Coder(Protocol):
    """Turns codes into bytes and back, without loss."""

    def encode(self, codes_N: UInt8, symbols: int) -> bytes:
        """Encode uint8[N], N ≥ 0, each below `symbols`, which is 2 to 256."""
        ...

    def decode(self, reader: Reader, count: int, symbols: int) -> UInt8:
        """Decode uint8[count], each below `symbols`.

        Raises:
            Incomplete: the bytes end too early.
            Malformed: the bytes break the layout, or a code is too large.
        """
        ...
