"""One model's tensors as one run of bytes: an update on its way up, or global weights on their way down.

Layout: `BF`, version byte 1, little-endian uint16 header length, msgpack header with integer keys, then the tensors
without names or lengths, since shapes come from the table: weights one by one, then what is small together (`layout`).

Deltas carry new − base for every tensor but the moments; moments are absolute, as measured over `pictures` pictures,
and left out where that is none.
What calibration measured has the same form, without the shared tensors.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Final

import msgpack
import numpy as np
import numpy.typing as npt

from protocol import networks
from protocol.architecture import Architecture, Tensors, TensorSpec
from protocol.codec.base import RunCodec, StepCodec, TensorCodec
from protocol.codec.coded import Coded, Dense
from protocol.codec.layout import Layout, layout_of
from protocol.codec.recipe import Recipe
from protocol.codec.rotation import stream
from protocol.codec.run import RunLayout, SignRun
from protocol.codec.together import GroupCodec, Grouped
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError, Unsupported
from protocol.precision import Float32, Precision, join, parse_several
from protocol.reader import Reader
from protocol.schema import Choice, Int, Text, from_map, key, to_map, unpack_map

MAGIC: Final = b"BF"
VERSION: Final = 1
MAX_HEADER_BYTES: Final = 512
"""Four short strings and a few integers; no valid header comes near it."""
PLANS: Final = 64
"""Headers whose meaning is kept; all devices of a round and a precision send almost the same one."""
MAX_PICTURES: Final = 1 << 32
PRECISIONS: Final = Text(64)
"""Room for `MAX_PROFILES` names of seven characters and what joins them."""
MAX_SEED: Final = (1 << 32) - 1
MAX_MAGNITUDE: Final = 1e30
"""No tensor of a network that works comes near it, and every codec can represent it."""


class Content(IntEnum):
    """What the tensors are: a whole model, its changes, or only what a calibration measured (a few kilobytes)."""

    WEIGHTS = 0
    DELTA = 1
    PROFILES = 2


@dataclass(frozen=True, slots=True)
class Header:
    """What a decoder must know before the first tensor.

    `precision` is one, or several joined by `+`: their profiles follow one another. `seed` is of what both sides draw
    alike, such as rotations; weight tensor i, counted from 0, takes word i of its `rotation.stream`.
    """

    architecture: str = key(1, Text(128))
    recipe: str = key(2, Text(64))
    precision: str = key(3, PRECISIONS)
    content: Content = key(4, Choice(Content))
    pictures: int = key(5, Int(0, MAX_PICTURES))
    seed: int = key(6, Int(0, MAX_SEED), default=0)

    @property
    def network(self) -> Architecture:
        """The table the spec names."""
        return networks.parse(self.architecture)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions whose profiles are there."""
        return parse_several(self.precision)

    @property
    def layout(self) -> Layout:
        """The tensors that follow."""
        whole, shared = self.content is Content.WEIGHTS, self.content is not Content.PROFILES
        return layout_of(
            self.architecture, self.precision, whole=whole, shared=shared, moments=whole or self.pictures > 0
        )

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors that follow, in wire order."""
        return self.layout.specs


@dataclass(frozen=True, slots=True)
class Payload:
    """A decoded payload: its header and float32 tensors by name, in their table's shapes."""

    header: Header
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class CodedPayload:
    """A payload that was read, its weights as they were coded.

    Attributes:
        header: its header.
        apart: weights that were read one by one, by name.
        run: weights that were read all at once, in the layout's order.
        deltas: all of `Layout.deltas`, one after the other.
        absolutes_N: all of `Layout.absolutes` likewise.
    """

    header: Header
    apart: Mapping[str, Coded]
    run: SignRun | None
    deltas: Grouped
    absolutes_N: Float32

    @property
    def weights(self) -> Mapping[str, Coded]:
        """All weights by name."""
        if self.run is None:
            return self.apart
        return {spec.name: part for spec, part in zip(self.header.layout.weights, self.run.parts(), strict=True)}

    def peaks_S(self) -> npt.NDArray[np.float64]:
        """The largest magnitude of each weight, or of what it is when rotated, in the layout's order."""
        if self.run is not None:
            return self.run.peaks().astype(np.float64)
        return np.array([self.apart[spec.name].peak() for spec in self.header.layout.weights], dtype=np.float64)


def encode(header: Header, tensors: Tensors, rng: np.random.Generator, steps: Sequence[float] = ()) -> bytes:
    """Encode the tensors of one model.

    Args:
        header: names architecture, recipe, precision, content and the pictures behind the moments.
        tensors: every tensor of `header.specs`, finite float32 in its shape.
        rng: for stochastic rounding.
        steps: announced for `stosign` or `step`, one for each weight; without them each takes its own, or the recipe's.

    Raises:
        LocalProtocolError: a tensor is missing, has another shape or is not finite, or there are steps for another
            number of weights.
    """
    packed, plan = msgpack.packb(to_map(header)), _plan(header)
    body: list[bytes | memoryview] = []
    for (spec, _, seed), codec in zip(plan.seeded, _codecs(plan, steps), strict=True):
        body.append(codec.encode(_checked(tensors, spec), rng, seed))
    for specs, sizes_S, group in (
        (plan.layout.deltas, plan.layout.delta_sizes, plan.deltas),
        (plan.layout.absolutes, plan.layout.absolute_sizes, plan.absolutes),
    ):
        if specs:
            body.append(group.encode(np.concatenate([_checked(tensors, spec) for spec in specs]), sizes_S, rng))
    return b"".join([MAGIC, struct.pack("<BH", VERSION, len(packed)), packed, *body])


def _codecs(plan: "_Plan", steps: Sequence[float]) -> list[TensorCodec]:
    if not steps or not plan.seeded or not isinstance(plan.weights, StepCodec):
        return [plan.weights] * len(plan.seeded)
    if len(steps) != len(plan.seeded):
        raise LocalProtocolError(f"{len(steps)} steps for {len(plan.seeded)} weights: expected as many")
    return [plan.weights.with_step(step) for step in steps]


def decode(data: bytes | memoryview) -> Payload:
    """Decode a payload.

    Raises:
        RemoteProtocolError: for any bytes that `encode` does not produce.
    """
    coded = read(data)
    layout = coded.header.layout
    weights = coded.weights
    tensors = {spec.name: weights[spec.name].values().reshape(spec.shape) for spec in layout.weights}
    for specs, values_N in ((layout.deltas, coded.deltas.values()), (layout.absolutes, coded.absolutes_N)):
        start = 0
        for spec in specs:
            tensors[spec.name] = values_N[start : start + spec.size].reshape(spec.shape)
            start += spec.size
    return Payload(coded.header, tensors)


def read(data: bytes | memoryview) -> CodedPayload:
    """Check a payload as `decode` does, and leave its weights as they lie there where that saves work.

    Raises:
        RemoteProtocolError: for any bytes that `encode` does not produce.
    """
    header, reader = read_header(data)
    plan, nothing = _plan(header), np.zeros(0, dtype=np.float32)
    layout, run = plan.layout, plan.run.read(reader) if plan.run else None
    apart = {} if run else _apart(plan, reader)
    deltas = plan.deltas.read(reader, layout.delta_sizes) if layout.deltas else Dense(nothing)
    absolutes_N = plan.absolutes.read(reader, layout.absolute_sizes).values() if layout.absolutes else nothing
    if (absolutes_N[layout.variances] < 0).any():
        raise Malformed("a variance below zero")
    reader.finish()
    return CodedPayload(header, apart, run, deltas, absolutes_N)


def _apart(plan: "_Plan", reader: Reader) -> dict[str, Coded]:
    weights = {}
    for spec, size, seed in plan.seeded:
        try:
            weights[spec.name] = plan.weights.read(reader, size, seed)
        except RemoteProtocolError as error:
            raise type(error)(f"tensor {spec.name}: {error}", error.refusal) from error
    return weights


def header_seed(recipe: Recipe, seed: int) -> int:
    """What a header says of a seed of any size: as much as it holds, 0 where the recipe draws nothing."""
    return seed & MAX_SEED if recipe.is_seeded else 0


def fp32_bytes(header: Header) -> int:
    """The length of a payload with these tensors at full precision."""
    plain = replace(header, recipe="fp32", seed=0)
    return len(MAGIC) + 3 + len(msgpack.packb(to_map(plain))) + 4 * sum(spec.size for spec in header.specs)


def read_header(data: bytes | memoryview) -> tuple[Header, Reader]:
    """The header alone, and a reader that stands before the first tensor.

    Raises:
        RemoteProtocolError: not a payload of this version, or a header with unknown or contradictory values.
    """
    reader = Reader(data)
    magic = bytes(reader.take(2, "magic"))
    if magic != MAGIC:
        raise Malformed(f"magic {magic.hex()}: expected {MAGIC.hex()} for a bitfleet payload")
    version = reader.byte("version")
    if version != VERSION:
        raise Unsupported(f"payload version {version}: this side reads {VERSION}")
    (length,) = struct.unpack("<H", reader.take(2, "header length"))
    if length > MAX_HEADER_BYTES:
        raise Malformed(f"header of {length} bytes: expected at most {MAX_HEADER_BYTES}")
    return _header(bytes(reader.take(length, "header"))), reader


@lru_cache(maxsize=PLANS)
def _header(packed: bytes) -> Header:
    header = from_map(Header, unpack_map(packed))
    if str(Recipe.parse(header.recipe)) != header.recipe or join(header.precisions) != header.precision:
        raise Malformed(f"header names {header.recipe!r} at {header.precision!r}: not canonical")
    if header.network.spec != header.architecture:
        raise Malformed(f"header names {header.architecture!r}: not canonical")
    return header


@dataclass(frozen=True, slots=True)
class _Plan:
    """What follows from a header, with each weight's number of values and the word that it draws from."""

    layout: Layout
    seeded: tuple[tuple[TensorSpec, int, int], ...]
    weights: TensorCodec
    run: RunLayout | None
    deltas: GroupCodec
    absolutes: GroupCodec


@lru_cache(maxsize=PLANS)
def _plan(header: Header) -> _Plan:
    layout, recipe = header.layout, Recipe.parse(header.recipe)
    seeds = stream(header.seed, 0, len(layout.weights)).tolist()
    counts, codec = [spec.size for spec in layout.weights], recipe.weights
    run = codec.run(counts, seeds) if counts and isinstance(codec, RunCodec) else None
    seeded = tuple(zip(layout.weights, counts, seeds, strict=True))
    return _Plan(layout, seeded, codec, run, recipe.deltas, recipe.absolutes)


def _checked(tensors: Tensors, spec: TensorSpec) -> Float32:
    if spec.name not in tensors:
        raise LocalProtocolError(f"tensor {spec.name} is missing")
    values = tensors[spec.name]
    if values.shape != spec.shape:
        raise LocalProtocolError(f"tensor {spec.name} has shape {values.shape}: expected {spec.shape}")
    if not (values.max() <= MAX_MAGNITUDE and values.min() >= -MAX_MAGNITUDE):  # neither holds beside NaN
        raise LocalProtocolError(f"tensor {spec.name} holds a value that is not finite or above {MAX_MAGNITUDE:g}")
    return values.astype(np.float32, copy=False).reshape(-1)
