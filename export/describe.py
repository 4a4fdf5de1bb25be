"""What a model file is, read from the file: layers with their bytes and operations, totals, metadata."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from export.errors import ExportError
from export.passes.attach_metadata import read_metadata
from export.writer import parse
from protocol import networks
from protocol.architecture import Architecture, Layer, Shape
from protocol.energy import bops, layer_bops
from protocol.errors import RemoteProtocolError
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Row:
    """One layer.

    Attributes:
        name: of the layer.
        kind: what it does.
        weight_shape: of its weight, if it has one.
        weight_bits: of its weight.
        activation_bits: of what it stores, None for logits.
        stored_bytes: what its constants take in the file.
        multiply_adds: for one picture.
        bops: bit operations, as `protocol.energy.bops` counts them.
    """

    name: str
    kind: str
    weight_shape: Shape | None
    weight_bits: int | None
    activation_bits: int | None
    stored_bytes: int
    multiply_adds: int
    bops: int


@dataclass(frozen=True, slots=True)
class Description:
    """A whole model file. `file_bytes` exceeds the layers' by shared constants and the graph itself."""

    rows: tuple[Row, ...]
    file_bytes: int
    multiply_adds: int
    bops: int
    metadata: Mapping[str, str]


def describe(model: bytes) -> Description:
    """Read a file that `bitfleet-export` wrote.

    Raises:
        ExportError: it is no ONNX file, or says nothing about itself.
    """
    proto = parse(model)
    architecture, precision, metadata = identify(proto)
    table = architecture.at(precision)
    rows = tuple(_row(table, layer, precision, proto) for layer in table.layers)
    multiply_adds = sum(row.multiply_adds for row in rows)
    return Description(rows, len(model), multiply_adds, bops(architecture, precision), metadata)


def identify(model: ModelProto) -> tuple[Architecture, Precision, dict[str, str]]:
    """Architecture, precision and all metadata that a model carries.

    Raises:
        ExportError: it carries none, or values that name nothing known.
    """
    metadata = read_metadata(model)
    try:
        return networks.parse(metadata["architecture"]), Precision.parse(metadata["precision"]), metadata
    except KeyError as error:
        raise ExportError(
            f"the model has no bitfleet metadata ({error} is missing): expected an exported file"
        ) from error
    except RemoteProtocolError as error:
        raise ExportError(f"the model's metadata: {error}") from error


def _row(rows: Architecture, layer: Layer, precision: Precision, model: ModelProto) -> Row:
    constants = (item for item in model.graph.initializer if item.name.startswith(f"{layer.name}."))
    stored_bytes = sum(len(item.raw_data) for item in constants)
    weight_bits = None if layer.weight_shape is None else precision.bits_of(pinned=layer.pinned)
    return Row(
        name=layer.name,
        kind=str(layer.kind),
        weight_shape=layer.weight_shape,
        weight_bits=weight_bits,
        activation_bits=rows.activation_bits(layer.scale, precision) if layer.scale else None,
        stored_bytes=stored_bytes,
        multiply_adds=layer.multiply_adds,
        bops=layer_bops(rows, layer, precision),
    )
