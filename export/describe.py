"""What a model file is, read from the file: layers with their bytes and operations, totals, metadata."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from export.errors import ExportError
from export.passes.attach_metadata import read_metadata
from export.writer import parse
from protocol import architecture as tables
from protocol.architecture import Architecture, Layer, Shape
from protocol.errors import RemoteProtocolError
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Row:
    """One layer. `stored_bytes` is what its constants take in the file.

    BOPs count bit operations, multiply-adds × bits of a weight × bits of an activation read.
    """

    name: str
    kind: str
    weight_shape: Shape | None
    weight_bits: int | None
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
    rows = tuple(_row(architecture, layer, precision, proto) for layer in architecture.layers)
    return Description(
        rows, len(model), sum(row.multiply_adds for row in rows), sum(row.bops for row in rows), metadata
    )


def identify(model: ModelProto) -> tuple[Architecture, Precision, dict[str, str]]:
    """Architecture, precision and all metadata that a model carries.

    Raises:
        ExportError: it carries none, or values that name nothing known.
    """
    metadata = read_metadata(model)
    try:
        return tables.parse(metadata["architecture"]), Precision.parse(metadata["precision"]), metadata
    except KeyError as error:
        raise ExportError(
            f"the model has no bitfleet metadata ({error} is missing): expected an exported file"
        ) from error
    except RemoteProtocolError as error:
        raise ExportError(f"the model's metadata: {error}") from error


def _row(architecture: Architecture, layer: Layer, precision: Precision, model: ModelProto) -> Row:
    constants = (item for item in model.graph.initializer if item.name.startswith(f"{layer.name}."))
    stored_bytes = sum(len(item.raw_data) for item in constants)
    if layer.weight_shape is None:
        return Row(layer.name, str(layer.kind), None, None, stored_bytes, 0, 0)
    weight_bits = precision.bits_of(pinned=layer.pinned)
    activation_bits = architecture.activation_bits(architecture.scale_of(layer.inputs[0]), precision)
    bops = layer.multiply_adds * weight_bits * activation_bits
    return Row(layer.name, str(layer.kind), layer.weight_shape, weight_bits, stored_bytes, layer.multiply_adds, bops)
