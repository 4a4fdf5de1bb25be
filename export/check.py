"""Holds a finished model to the reference on real inputs; nothing is shipped that differs.

Integer networks must be equal in every bit of every logit. The fp32 network, whose sums no two libraries add in the
same order, must agree within `FLOAT_TOLERANCE` and name the same class wherever the reference's margin exceeds it.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from export import ort
from export.arithmetic import UInt8
from export.errors import CheckFailed, ExportError
from export.passes import binary
from export.passes.binary_functions import FUNCTIONS
from export.reference import FloatNetwork, IntegerNetwork
from export.writer import LOGITS, OPSET, PICTURES, check_valid, parse, serialize
from protocol import operators
from protocol.architecture import Architecture, Tensors
from protocol.precision import Float32, Precision

FLOAT_TOLERANCE: Final = 1e-4
"""Of the largest logit of the batch. Measured: 2e−6 (float32 keeps 7 digits, sums of 4608 products lose one or two)."""

BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        pictures: how many were compared.
        bit_equal: whether every logit was equal in every bit.
        largest_difference: of any logit, absolute.
        predictions_N: the class the model names for each picture, int64[N].
    """

    pictures: int
    bit_equal: bool
    largest_difference: float
    predictions_N: npt.NDArray[np.int64] = field(repr=False, compare=False)

    def accuracy(self, labels_N: npt.NDArray[np.integer[Any]]) -> float:
        """Share of pictures whose class the model names."""
        return float(np.mean(self.predictions_N == labels_N))

    def per_class(self, labels_N: npt.NDArray[np.integer[Any]], classes: int) -> list[tuple[int, int]]:
        """Of every class, how many pictures the model names rightly and how many there are.

        Labels of no class count nowhere.
        """
        known_N = (labels_N >= 0) & (labels_N < classes)
        right = np.bincount(labels_N[known_N & (self.predictions_N == labels_N)], minlength=classes)
        shown = np.bincount(labels_N[known_N], minlength=classes)
        return list(zip(right.tolist(), shown.tolist(), strict=True))


def check(
    model: bytes, architecture: Architecture, precision: Precision, tensors: Tensors, pictures_NCHW: UInt8
) -> Report:
    """Compare a model file with the reference.

    Args:
        model: the ONNX file's bytes.
        architecture: the table it should implement.
        precision: at this precision.
        tensors: the weights it should hold.
        pictures_NCHW: uint8[N, C, H, W], at least one.

    Raises:
        CheckFailed: it is no portable model, or differs; names the first picture and layer that do.
        ExportError: weights or pictures are unusable.
    """
    _require_pictures(architecture, pictures_NCHW)
    proto = parse(model)
    require_portable(proto, architecture)
    reference = _reference(architecture, precision, tensors)
    session = ort.session(model)
    batches = [pictures_NCHW[start : start + BATCH] for start in range(0, len(pictures_NCHW), BATCH)]
    expected_NL = np.concatenate([reference.logits(batch) for batch in batches])
    found_NL: Float32 = np.concatenate([ort.run(session, batch, [LOGITS])[0] for batch in batches])
    picture = _first_difference(found_NL, expected_NL, exact=not precision.is_float)
    if picture is not None:
        where = _locate(proto, reference, pictures_NCHW[picture : picture + 1], exact=not precision.is_float)
        difference = np.abs(found_NL[picture] - expected_NL[picture]).max()
        raise CheckFailed(f"{precision} model, picture {picture}: logits differ by up to {difference:g}; {where}")
    if proto.functions:
        _check_standard_form(model, batches[0], expected_NL[:BATCH])
    difference = float(np.abs(found_NL - expected_NL).max())
    return Report(len(pictures_NCHW), difference == 0, difference, found_NL.argmax(axis=1))


def require_portable(model: ModelProto, architecture: Architecture) -> None:
    """Check that the model is valid, self-contained, in operators that any runtime has and has the agreed ends.

    Raises:
        CheckFailed: it is not.
    """
    opsets = {item.domain: item.version for item in model.opset_import}
    ours = {operators.DOMAIN: operators.VERSION} if model.functions else {}
    if opsets != {"": OPSET, **ours}:
        raise CheckFailed(f"model imports operator sets {opsets}: expected ai.onnx {OPSET} alone, or beside its own")
    for function in model.functions:
        if function != FUNCTIONS.get(function.name):
            raise CheckFailed(f"model defines {function.domain}.{function.name} otherwise than the exporter does")
    external = [item.name for item in model.graph.initializer if item.data_location == TensorProto.EXTERNAL]
    if external:
        raise CheckFailed(f"constant {external[0]} lies outside the file: expected a model in one file")
    ends = [_end(item) for item in (*model.graph.input, *model.graph.output)]
    agreed: list[End] = [
        (PICTURES, TensorProto.UINT8, list(architecture.input_shape)),
        (LOGITS, TensorProto.FLOAT, [architecture.classes]),
    ]
    if ends != agreed:
        raise CheckFailed(f"model reads and gives {_spell(ends)}: expected {_spell(agreed)}")
    try:
        check_valid(model)
    except ExportError as error:
        raise CheckFailed(str(error)) from error


def _check_standard_form(model: bytes, pictures_NCHW: UInt8, expected_NL: Float32) -> None:
    """What a device runs that has none of our kernels."""
    found_NL = ort.run(ort.session(model, standard=True), pictures_NCHW, [LOGITS])[0]
    picture = _first_difference(found_NL, expected_NL, exact=True)
    if picture is not None:
        raise CheckFailed(f"the model in standard operators, picture {picture}: logits differ from the reference's")


End = tuple[str, int, list[int]]


def _end(item: Any) -> End:
    tensor = item.type.tensor_type
    return item.name, tensor.elem_type, [dim.dim_value for dim in tensor.shape.dim][1:]


def _spell(ends: list[End]) -> str:
    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return ", ".join(f"{name} {names.get(kind, kind)}[N, {str(shape)[1:]}" for name, kind, shape in ends)


def _reference(architecture: Architecture, precision: Precision, tensors: Tensors) -> FloatNetwork | IntegerNetwork:
    if precision.is_float:
        return FloatNetwork(architecture, tensors)
    return IntegerNetwork(architecture, precision, tensors)


def _require_pictures(architecture: Architecture, pictures_NCHW: UInt8) -> None:
    shape, expected = pictures_NCHW.shape, architecture.input_shape
    if pictures_NCHW.dtype != np.uint8 or shape[1:] != expected or not len(pictures_NCHW):
        wanted = f"uint8[N, {', '.join(map(str, expected))}]"
        raise ExportError(f"pictures are {pictures_NCHW.dtype}{list(shape)}: expected at least one of {wanted}")


def _first_difference(found_NL: Float32, expected_NL: Float32, *, exact: bool) -> int | None:
    """Number of the first picture whose logits disagree."""
    if exact:
        wrong_N = (found_NL.view(np.int32) != expected_NL.view(np.int32)).any(axis=1)
    else:
        tolerance = FLOAT_TOLERANCE * float(np.abs(expected_NL).max())
        top_N2 = np.sort(expected_NL, axis=1)[:, -2:]
        is_clear_N = top_N2[:, 1] - top_N2[:, 0] > tolerance
        flipped_N = is_clear_N & (found_NL.argmax(axis=1) != expected_NL.argmax(axis=1))
        wrong_N = ~(np.abs(found_NL - expected_NL) <= tolerance).all(axis=1) | flipped_N
    return int(wrong_N.argmax()) if wrong_N.any() else None


def _locate(model: ModelProto, reference: FloatNetwork | IntegerNetwork, picture_1CHW: UInt8, *, exact: bool) -> str:
    """The first layer that stores something else than the reference, found by showing every layer's output."""
    written = {name for node in model.graph.node for name in node.output}
    absorbed = binary.plan(reference.graph).absorbed if isinstance(reference, IntegerNetwork) else frozenset()
    layers = [layer.name for layer in reference.architecture.layers[:-1] if layer.name not in absorbed]
    values_of = {name: name if name in written else f"{name}/nhwc" for name in layers}
    missing = [name for name, value in values_of.items() if value not in written]
    if missing:
        return f"layer {missing[0]} is not in the model"
    opened = ModelProto()
    opened.CopyFrom(model)
    kind = TensorProto.UINT8 if exact else TensorProto.FLOAT
    opened.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in values_of.values())
    found = ort.run(ort.session(serialize(opened)), picture_1CHW, list(values_of.values()))
    expected = reference.activations(picture_1CHW)
    for (name, value), stored in zip(values_of.items(), found, strict=True):
        values = stored if value == name else stored.transpose(0, 3, 1, 2)
        if values.shape != expected[name].shape:
            return f"layer {name} has shape {values.shape[1:]}: expected {expected[name].shape[1:]}"
        tolerance = 0 if exact else FLOAT_TOLERANCE * float(np.abs(expected[name]).max())
        wrong = np.abs(values.astype(np.float64) - expected[name]) > tolerance
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            return (
                f"first in layer {name}: {int(wrong.sum())} of {wrong.size} values, at"
                f" {[int(i) for i in at[1:]]} the model has {values[at]:g}, the reference {expected[name][at]:g}"
            )
    return f"every layer before {reference.architecture.layers[-1].name} agrees"
