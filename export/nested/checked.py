"""A nested file that was proven before anyone gets it: read back, sliced at every precision, each slice checked."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from export.arithmetic import UInt8
from export.check import Report, check
from export.nested.file import read_nested, write_nested
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Slice:
    """One precision of a nested file: bytes of its ONNX model and what the check of it found."""

    model_bytes: int
    report: Report


@dataclass(frozen=True, slots=True)
class NestedExport:
    """A nested file whose every slice passed its check.

    Attributes:
        data: the file's bytes.
        digest: their SHA-256 in hex.
        slices: by precision.
    """

    data: bytes = field(repr=False)
    digest: str
    slices: Mapping[Precision, Slice]


def export_nested(
    architecture: Architecture,
    precisions: Sequence[Precision],
    tensors_of: Callable[[Precision], Tensors],
    *,
    pictures_NCHW: UInt8,
) -> NestedExport:
    """Write a nested file, read it back and hold every slice to the integer reference of the trained tensors.

    Args:
        architecture: with nested codes.
        precisions: at least one, each once.
        tensors_of: gives those of `architecture.tensors(precision)`; all but the profiles must be equal.
        pictures_NCHW: uint8[N, C, H, W] to check on, at least one.

    Raises:
        CheckFailed: a slice does not compute what the reference computes.
        ExportError: the network, precisions, tensors or pictures are unusable.
    """
    data = write_nested(architecture, precisions, tensors_of)
    nested, slices = read_nested(data), {}
    for precision in precisions:
        model = serialize(nested.slice(precision))
        report = check(model, architecture, precision, tensors_of(precision), pictures_NCHW)
        slices[precision] = Slice(len(model), report)
    return NestedExport(data, hashlib.sha256(data).hexdigest(), slices)
