"""A model that differs is caught, and the message says where."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.check import check
from export.errors import CheckFailed, ExportError
from export.passes import to_onnx
from export.passes.attach_metadata import attach_metadata, read_metadata
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Check = Callable[[ModelProto | bytes], object]

W8A8 = Precision(8, 8)


@pytest.fixture
def model(small: Architecture, make_tensors: MakeTensors) -> ModelProto:
    return to_onnx(small, W8A8, make_tensors(small, W8A8))


@pytest.fixture
def checked(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> Check:
    tensors = make_tensors(small, W8A8)

    def run(model: ModelProto | bytes) -> object:
        return check(model if isinstance(model, bytes) else serialize(model), small, W8A8, tensors, digits[0][:10])

    return run


def constant(model: ModelProto, name: str) -> TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def change(model: ModelProto, name: str, values: npt.ArrayLike) -> None:
    constant(model, name).CopyFrom(numpy_helper.from_array(np.asarray(values), name))


def nodes_of(model: ModelProto, operator: str) -> Iterator[onnx.NodeProto]:
    return (node for node in model.graph.node if node.op_type == operator)


def test_a_faithful_model_passes_with_its_figures(
    small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    tensors = make_tensors(small, W8A8)
    report = check(serialize(to_onnx(small, W8A8, tensors)), small, W8A8, tensors, digits[0][:70])
    assert (report.pictures, report.bit_equal, report.largest_difference) == (70, True, 0.0)
    assert report.accuracy(report.predictions_N) == 1
    assert 0 <= report.accuracy(digits[1][:70]) <= 1


def test_a_float_model_passes_within_its_tolerance(
    small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    tensors = make_tensors(small, FP32)
    report = check(serialize(to_onnx(small, FP32, tensors)), small, FP32, tensors, digits[0][:70])
    assert 0 < report.largest_difference < 1e-4
    assert not report.bit_equal


def test_one_changed_bias_is_found_in_its_layer(model: ModelProto, checked: Check) -> None:
    bias_O = numpy_helper.to_array(constant(model, "layer2.0.conv2.bias")).copy()
    bias_O[0] += 50_000
    change(model, "layer2.0.conv2.bias", bias_O)
    with pytest.raises(CheckFailed, match=r"W8A8 model, picture 0: .* first in layer layer2\.0\.conv2: "):
        checked(model)


def test_a_wrong_logit_scale_is_found_after_all_layers(model: ModelProto, checked: Check) -> None:
    scale_O = numpy_helper.to_array(constant(model, "classifier.logit_scale"))
    change(model, "classifier.logit_scale", np.nextafter(scale_O, np.float32(1)))
    with pytest.raises(CheckFailed, match="every layer before classifier agrees"):
        checked(model)


def test_a_changed_float_weight_is_found(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    tensors = make_tensors(small, FP32)
    model = to_onnx(small, FP32, tensors)
    weight = numpy_helper.to_array(constant(model, "layer1.0.conv1.weight")).copy()
    weight[0] += 0.01
    change(model, "layer1.0.conv1.weight", weight)
    with pytest.raises(CheckFailed, match=r"first in layer layer1\.0\.conv1"):
        check(serialize(model), small, FP32, tensors, digits[0][:10])


def test_a_logit_that_is_not_finite_is_found(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    tensors = make_tensors(small, FP32)
    model = to_onnx(small, FP32, tensors)
    change(model, "classifier.bias", np.full(10, np.nan, np.float32))
    with pytest.raises(CheckFailed, match="logits differ by up to nan"):
        check(serialize(model), small, FP32, tensors, digits[0][:10])


def test_a_model_without_the_tables_layers_is_found(model: ModelProto, checked: Check) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["renamed" if name == "stem.conv" else name for name in names]
    change(model, "classifier.bias", np.zeros(10, np.int32))
    with pytest.raises(CheckFailed, match=r"layer stem\.conv is not in the model"):
        checked(model)


def test_another_networks_weights_are_found(
    model: ModelProto, small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    tensors = make_tensors(small, W8A8)
    tensors["stem.conv.weight"][:] = tensors["stem.conv.weight"][::-1]
    with pytest.raises(CheckFailed, match=r"first in layer stem\.conv"):
        check(serialize(model), small, W8A8, tensors, digits[0][:10])


def test_operators_of_a_vendor_are_refused(model: ModelProto, checked: Check) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(CheckFailed, match=r"com\.microsoft.*expected ai\.onnx 21 alone"):
        checked(model)


def test_constants_outside_the_file_are_refused(model: ModelProto, checked: Check) -> None:
    stored = constant(model, "stem.conv.weight")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="weights.bin")
    with pytest.raises(CheckFailed, match=r"constant stem\.conv\.weight lies outside the file"):
        checked(model)


def test_another_input_shape_is_refused(model: ModelProto, checked: Check) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].ClearField("dim_value")
    with pytest.raises(CheckFailed, match=r"expected pictures uint8\[N, 1, 32, 32\], logits float\[N, 10\]"):
        checked(model)


def test_a_graph_that_is_no_valid_onnx_is_refused(model: ModelProto, checked: Check) -> None:
    next(nodes_of(model, "QLinearConv")).op_type = "QLinearConvolution"
    with pytest.raises(CheckFailed, match="not a valid ONNX model"):
        checked(model)


@pytest.mark.parametrize("kept", [0, 1, 100, 10_000])
def test_a_truncated_file_is_refused(
    kept: int, model: ModelProto, small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    with pytest.raises(ExportError, match=f"{kept} bytes are no ONNX file"):
        check(serialize(model)[:kept], small, W8A8, make_tensors(small, W8A8), digits[0][:2])


@pytest.mark.parametrize(
    "pictures",
    [np.zeros((0, 1, 32, 32), np.uint8), np.zeros((1, 1, 28, 28), np.uint8), np.zeros((1, 1, 32, 32), np.float32)],
)
def test_pictures_of_another_kind_are_refused(
    pictures: npt.NDArray[np.uint8], model: ModelProto, small: Architecture, make_tensors: MakeTensors
) -> None:
    with pytest.raises(ExportError, match=r"expected at least one of uint8\[N, 1, 32, 32\]"):
        check(serialize(model), small, W8A8, make_tensors(small, W8A8), pictures)


def test_metadata_comes_back_and_leaves_the_graph_alone(model: ModelProto) -> None:
    labelled = attach_metadata(model, {"round": "3", "base": "abc"})
    assert read_metadata(labelled) == {"round": "3", "base": "abc"}
    assert labelled.graph == model.graph
    assert read_metadata(model) == {}


def test_metadata_that_is_no_string_is_refused_by_name(model: ModelProto) -> None:
    with pytest.raises(ExportError, match="metadata round = 3: expected a string"):
        attach_metadata(model, {"round": 3})  # type: ignore[dict-item]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_file_with_changed_bytes_passes_or_is_refused_and_never_crashes(
    edits: list[tuple[float, int]], model: ModelProto, checked: Check
) -> None:
    damaged = bytearray(serialize(model))
    for place, value in edits:
        damaged[int(place * len(damaged))] = value
    with suppress(ExportError):
        checked(bytes(damaged))
