"""The bytes of a nested model: codes once, folded numbers per precision.

Layout: `BFN`, version byte 1, the spec and the precisions joined by `+`, each after its uint16 length; one zlib
stream after its uint32 length. In it are arrays without names or lengths, because their order and shapes follow from
the table:

    shared          int8 codes of every layer with weights; γ, β of every GroupNorm; slope, shift in, shift out of every
                    PReLU
    per precision   of every layer with weights the effect on each channel's codes (2 bits: 0 dead, 1 as they are,
                    2 sign changed), scale, and int32 bias unless GroupNorm follows; the step of every scale group; of
                    every row that narrows a signed stream its thresholds (1 bit) or its zero (a byte)

Numbers are little-endian. zlib is there because 8-bit codes of bell-shaped weights shrink by a sixth, which pays for
the profiles of networks with few weights per channel. A file has no digest of its own: whoever sends one signs it, as
with a bundle.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from export.arithmetic import Int32
from export.errors import ExportError
from export.graph import MAX_LOG_STEP, GroupNorm, Prelu, thresholded, zeroed
from export.grids import grid_of
from export.nested.model import WIDEST, NestedModel, Profile, Shared, nest, require_nestable
from export.passes.fold_normalisation import MAX_BIAS, Folding, check_scales
from protocol import networks
from protocol.architecture import Architecture, Kind, Layer, Tensors
from protocol.codec import bitpack
from protocol.errors import Malformed, RemoteProtocolError, Unsupported
from protocol.precision import Float32, Int8, Precision, join, parse_several
from protocol.reader import Reader

MAGIC: Final = b"BFN"
VERSION: Final = 1
EFFECT_BITS: Final = 2
_EFFECTS: Final = np.array([0, 1, -1], np.int8)
_BIAS_LIMIT: Final = MAX_BIAS + (MAX_BIAS >> 20)
"""The bias of a dead channel misses `MAX_BIAS` by the rounding of its float32 scale."""
_STEP_TOLERANCE: Final = 1e-3
"""A step of e^25 in float32 has a logarithm a little beside 25."""


def write_nested(
    architecture: Architecture, precisions: Sequence[Precision], tensors_of: Callable[[Precision], Tensors]
) -> bytes:
    """One file for several precisions of one network.

    Args:
        architecture: with nested codes.
        precisions: at least one, each once.
        tensors_of: gives those of `architecture.tensors(precision)`; all but the profiles must be equal.

    Raises:
        ExportError: the codes are not nested, a precision cannot be written, or tensors are unusable or differ.
    """
    model = nest(architecture, precisions, tensors_of)
    texts = (text.encode() for text in (architecture.spec, join(precisions)))
    head = (struct.pack("<H", len(text)) + text for text in texts)
    profiles = (_profile_bytes(model, precision) for precision in precisions)
    parts = (_shared_bytes(model), *profiles)
    body = b"".join(piece for part in parts for piece in part)
    packed = zlib.compress(body, level=9)
    return b"".join([MAGIC, bytes([VERSION]), *head, struct.pack("<I", len(packed)), packed])


def read_nested(data: bytes | memoryview) -> NestedModel:
    """Read what `write_nested` wrote.

    Raises:
        ExportError: for any bytes that it does not produce.
    """
    try:
        return _read(Reader(data))
    except RemoteProtocolError as error:
        raise ExportError(f"not a nested model: {error}") from error


def _read(reader: Reader) -> NestedModel:
    magic = bytes(reader.take(len(MAGIC), "magic"))
    if magic != MAGIC:
        raise Malformed(f"magic {magic.hex()}: expected {MAGIC.hex()}")
    version = reader.byte("version")
    if version != VERSION:
        raise Unsupported(f"nested model version {version}: this side reads {VERSION}")
    architecture = networks.parse(_read_text(reader, "architecture"))
    precisions = parse_several(_read_text(reader, "precisions"))
    require_nestable(architecture, precisions)
    (length,) = struct.unpack("<I", reader.take(4, "length of the arrays"))
    body = Reader(_inflate(reader.take(length, "arrays"), _most_bytes(architecture, precisions)))
    reader.finish()
    shared = _read_shared(body, architecture)
    profiles = {precision: _read_profile(body, architecture.at(precision), precision) for precision in precisions}
    body.finish()
    model = NestedModel(architecture, shared, profiles)
    for precision in precisions:
        _check_graph(model, precision)
    return model


def _inflate(data: memoryview, limit: int) -> bytes:
    """The zlib stream's content, refused before it outgrows `limit`."""
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, limit)
    except zlib.error as error:
        raise Malformed(f"arrays: {error}") from error
    if not stream.eof or stream.unused_data:
        raise Malformed(f"arrays: expected one whole zlib stream of at most {limit} bytes")
    return body


def _most_bytes(architecture: Architecture, precisions: Sequence[Precision]) -> int:
    """More than any body has: a byte per weight, and per channel and precision fewer than 16."""
    channels = sum(spec.size for item in precisions for spec in architecture.tensors(item) if len(spec.shape) == 1)
    return architecture.parameters + 16 * channels


def _shared_bytes(model: NestedModel) -> Iterator[bytes]:
    shared = model.shared
    for layer in _weighted(model.architecture):
        yield shared.codes_OX[layer.name].tobytes()
        if layer.name in shared.norms:
            norm = shared.norms[layer.name]
            yield from (_numbers(norm.gamma_O), _numbers(norm.beta_O))
    for layer in _prelus(model.architecture):
        prelu = shared.prelus[layer.name]
        yield from map(_numbers, (prelu.slope_C, prelu.shift_in_C, prelu.shift_out_C))


def _read_shared(reader: Reader, architecture: Architecture) -> Shared:
    codes_OX, norms = {}, {}
    for layer in _weighted(architecture):
        codes_OX[layer.name] = _read_codes(reader, architecture, layer)
        if architecture.standardizes(layer):
            channels = layer.out_shape[0]
            gamma_O, beta_O = (reader.floats(channels, f"{layer.name}.{what}") for what in ("gamma", "beta"))
            norms[layer.name] = GroupNorm(gamma_O, beta_O, architecture.norm_groups(channels))
    prelus = {
        layer.name: Prelu(*(reader.floats(layer.out_shape[0], f"{layer.name}.{what}") for what in _PRELU))
        for layer in _prelus(architecture)
    }
    return Shared(codes_OX, norms, prelus)


_PRELU: Final = ("slope", "shift_in", "shift_out")


def _profile_bytes(model: NestedModel, precision: Precision) -> Iterator[bytes]:
    rows, profile = model.architecture.at(precision), model.profiles[precision]
    for layer in _weighted(rows):
        folding = profile.foldings[layer.name]
        yield bitpack.pack((folding.effect_O % 3).astype(np.uint8), EFFECT_BITS)  # −1 becomes 2
        yield _numbers(folding.scale_O)
        if not rows.standardizes(layer):
            yield _numbers(folding.bias_O)
    yield _numbers(np.array([profile.steps[scale] for scale in rows.scales], np.float32))
    for row in thresholded(rows, precision):
        yield _numbers(profile.thresholds_C[row.name])
    yield bytes(profile.zeros[row.name] for row in zeroed(rows, precision))


def _read_profile(reader: Reader, rows: Architecture, precision: Precision) -> Profile:
    foldings = {layer.name: _read_folding(reader, rows, layer) for layer in _weighted(rows)}
    steps = dict(zip(rows.scales, _read_steps(reader, rows, precision), strict=True))
    thresholds_C = {
        row.name: reader.floats(row.out_shape[0], f"{row.name}.threshold") for row in thresholded(rows, precision)
    }
    zeros = {row.name: reader.byte(f"{row.name}.zero") for row in zeroed(rows, precision)}
    for name, zero in zeros.items():
        if zero >> precision.activation_bits:
            raise Malformed(f"{name}.zero {zero}: does not fit {precision.activation_bits} bits")
    return Profile(foldings, steps, zeros, thresholds_C)


def _read_codes(reader: Reader, architecture: Architecture, layer: Layer) -> Int8:
    shape, grid = layer.weight_shape, grid_of(architecture, layer, WIDEST)
    assert shape is not None  # only layers with weights come here
    count = int(np.prod(shape, dtype=np.int64))
    codes_OX = np.frombuffer(reader.take(count, f"{layer.name}.codes"), np.int8).reshape(shape)
    if not grid.holds(codes_OX):
        raise Malformed(f"{layer.name}.codes: expected integers within ±{grid.largest}")
    return codes_OX


def _read_folding(reader: Reader, rows: Architecture, layer: Layer) -> Folding:
    channels = layer.out_shape[0]
    effect_O = bitpack.unpack(reader, channels, EFFECT_BITS)
    if (effect_O >= len(_EFFECTS)).any():
        raise Malformed(f"{layer.name}.effect holds {effect_O.max()}: expected 0 to {len(_EFFECTS) - 1}")
    scale_O = reader.floats(channels, f"{layer.name}.scale")
    if (scale_O <= 0).any():
        raise Malformed(f"{layer.name}.scale holds {scale_O.min():g}: expected positive scales")
    bias_O = np.zeros(channels, np.int32) if rows.standardizes(layer) else _read_bias(reader, layer)
    return Folding(_EFFECTS[effect_O], scale_O, bias_O)


def _read_bias(reader: Reader, layer: Layer) -> Int32:
    channels = layer.out_shape[0]
    bias_O = np.frombuffer(reader.take(4 * channels, f"{layer.name}.bias"), "<i4").astype(np.int32)
    if (np.abs(bias_O.astype(np.int64)) > _BIAS_LIMIT).any():
        raise Malformed(f"{layer.name}.bias: expected integers within ±{_BIAS_LIMIT}")
    return bias_O


def _read_steps(reader: Reader, rows: Architecture, precision: Precision) -> Float32:
    steps = reader.floats(len(rows.scales), f"activation steps of {precision}")
    if (steps <= 0).any() or (np.abs(np.log(steps)) > MAX_LOG_STEP + _STEP_TOLERANCE).any():
        raise Malformed(f"activation steps of {precision}: expected positive ones within e^±{MAX_LOG_STEP:g}")
    return steps


def _read_text(reader: Reader, what: str) -> str:
    (length,) = struct.unpack("<H", reader.take(2, f"length of the {what}"))
    return bytes(reader.take(length, what)).decode("ascii", errors="replace")


def _check_graph(model: NestedModel, precision: Precision) -> None:
    """What `fold` checks in a direct export, for numbers that come from elsewhere."""
    graph = model.graph(precision)
    for layer in _weighted(graph.architecture):
        node = graph.nodes[layer.name]
        if node.norm is None:
            check_scales(graph, layer, node.scale_O)


def _weighted(architecture: Architecture) -> Iterator[Layer]:
    return (layer for layer in architecture.layers if layer.weight_shape is not None)


def _prelus(architecture: Architecture) -> Iterator[Layer]:
    return (layer for layer in architecture.layers if layer.kind is Kind.PRELU)


def _numbers(values: npt.NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()
