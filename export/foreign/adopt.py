"""A foreign network's arrays as tensors of our own table, at full precision."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from export.errors import ExportError
from export.foreign.found import Arrays, Found
from export.foreign.names import foreign_name, plain
from export.foreign.preprocess import Border, Preprocessing
from export.foreign.spec import FULL_WIDTH, recognise
from export.passes import float_numbers
from export.weights import Weights
from protocol.architecture import Architecture, Role, Shape, Tensors
from protocol.errors import RemoteProtocolError
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.networks.builder import CLASSIFIER
from protocol.precision import FP32, Float32

SEED: Final = 0
"""Of a fresh classifier: the same call gives the same file."""
STEM: Final = "stem.conv"


@dataclass(frozen=True, slots=True)
class Adopted:
    """A foreign network that is now one of ours.

    Attributes:
        architecture: its table.
        tensors: those of `architecture.tensors(FP32)`.
        border: what differs at the edges of pictures.
        fresh_classifier: whether the last layer was made anew, for other classes.
    """

    architecture: Architecture
    tensors: Tensors = field(repr=False)
    border: Border
    fresh_classifier: bool

    @property
    def weights(self) -> Weights:
        """As a weights file holds them."""
        return Weights(self.architecture, (FP32,), self.tensors)


def adopt(
    found: Found, preprocessing: Preprocessing, *, input_shape: Shape | None = None, classes: int | None = None
) -> Adopted:
    """Take a foreign network in.

    Args:
        found: what its file holds.
        preprocessing: what it expects of its pictures.
        input_shape: (C, H, W) of a picture; what the file says, or the stem's usual size, if not given.
        classes: for a new task, number of logits of a fresh classifier; the network's own if not given.

    Raises:
        ExportError: it is none that our tables describe, and which layers are not; or its numbers are unusable.
    """
    arrays = plain(found.arrays)
    architecture = recognise(arrays, input_shape or found.input_shape, preprocessing.zero)
    specs = architecture.tensors(FP32)
    tensors = {spec.name: _as_float32(arrays, foreign_name(architecture, spec)) for spec in specs}
    weight, mean, variance = (f"{STEM}.{role}" for role in (Role.WEIGHT, Role.MEAN, Role.VARIANCE))
    border = preprocessing.border(architecture.by_name[STEM], tensors[weight], tensors[variance])
    tensors[weight], tensors[mean] = preprocessing.absorb(tensors[weight], tensors[mean])
    fresh = classes is not None
    if classes is not None:
        architecture, tensors = _with_classes(architecture, tensors, classes)
    float_numbers(architecture, FP32, tensors)  # refuses what the exporter could not use
    return Adopted(architecture, tensors, border, fresh)


def _as_float32(arrays: Arrays, name: str) -> Float32:
    values = arrays[name]
    if values.dtype.kind != "f":
        raise ExportError(f"{name} holds {values.dtype}: expected floating point, quantized networks are not read")
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(narrow).all():
        raise ExportError(f"{name}: {np.count_nonzero(~np.isfinite(narrow))} values are NaN or leave float32")
    return narrow


def _with_classes(network: Architecture, tensors: Tensors, classes: int) -> tuple[Architecture, Tensors]:
    """The network with a classifier that has learned nothing yet."""
    width = network.layers[0].out_shape[0] / FULL_WIDTH
    stem = f"{network.layers[0].kernel}x{network.layers[0].kernel}"
    try:
        shape, zero = network.input_shape, network.zero
        other = resnet18(width=width, stem=stem, input_shape=shape, classes=classes, zero=zero)
    except RemoteProtocolError as error:
        raise ExportError(f"--classes {classes}: {error}") from error
    fresh = initial_tensors(other, FP32, SEED)
    return other, {name: fresh[name] if name.startswith(f"{CLASSIFIER}.") else tensors[name] for name in tensors}
