"""Every table, with either normalisation and either kind of codes, at every kind of precision: equal in every bit."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper
from strategies import usual_stem

from export.check import check
from export.passes import to_onnx
from export.reference import FloatNetwork, IntegerNetwork
from export.writer import serialize
from protocol.architecture import INPUT, Architecture, Kind, Layer, Norm, Tensors
from protocol.networks import FAMILIES, cnn4, parse
from protocol.networks.builder import Builder
from protocol.precision import FP32, Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

PRECISIONS = ("fp32", "W8A8", "W6A4", "W4A8", "W4A4", "W3A3", "W2A2", "W1A8", "W1A1", "W8A1")
VARIANTS = ("", ",norm=group", ",codes=nested", ",norm=group,codes=nested")
NETWORKS = [
    (family, variant)
    for family in FAMILIES
    for variant in VARIANTS
    if FAMILIES[family].normalised or "group" not in variant
]


def network(family: str, variant: str = "", width: str = "0.0625") -> Architecture:
    return parse(f"{family}:width={width}{usual_stem(family)},input=1x16x16,classes=10{variant}")


@pytest.fixture(scope="module")
def pictures(digits: Digits) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(digits[0][:12, :, ::2, ::2])


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize(("family", "variant"), NETWORKS)
class TestContract:
    def test_the_model_passes_its_check(
        self, family: str, variant: str, name: str, make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]
    ) -> None:
        architecture, precision = network(family, variant), Precision.parse(name)
        tensors = make_tensors(architecture, precision)
        report = check(serialize(to_onnx(architecture, precision, tensors)), architecture, precision, tensors, pictures)
        assert report.bit_equal or precision.is_float


@pytest.mark.parametrize("name", ["fp32", "W8A8", "W4A4", "W1A1"])
@pytest.mark.parametrize("variant", ["", ",norm=group"])
def test_a_pictures_zero_may_be_any_grey(
    variant: str, name: str, make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]
) -> None:
    """Padding is then that grey: a picture of nothing else looks the same everywhere."""
    architecture, precision = parse(f"cnn4:width=0.25,input=1x16x16,classes=10,zero=76{variant}"), Precision.parse(name)
    tensors = make_tensors(architecture, precision)
    report = check(serialize(to_onnx(architecture, precision, tensors)), architecture, precision, tensors, pictures)
    assert report.bit_equal or precision.is_float
    reference = FloatNetwork if precision.is_float else partial(IntegerNetwork, precision=precision)
    stored = reference(architecture, tensors=tensors).activations(np.full((1, 1, 16, 16), 76, np.uint8))["conv1"]
    assert (stored == stored[:, :, :1, :1]).all()


@pytest.mark.parametrize("name", ["W8A8", "W2A2", "W1A1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_pictures_reach_the_logits(
    family: str, name: str, make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]
) -> None:
    """Otherwise equality would be that of constants. No layer stores all the same, none leaves its levels.

    Wider than elsewhere, and with offsets at the thresholds: 1 bit through many layers of 4 untrained channels says
    nothing any more.
    """
    architecture, precision = network(family, width="0.25"), Precision.parse(name)
    tensors = make_tensors(architecture, precision)
    for layer in architecture.layers:
        if layer.norm and layer.relu:
            tensors[f"{layer.name}.beta"] += np.float32(0.3)
    reference = IntegerNetwork(architecture, precision, tensors)
    stored = reference.activations(pictures)
    assert stored["classifier"].std(axis=0).max() > 0
    for layer in reference.architecture.layers[:-1]:
        levels = np.unique(stored[layer.name])
        assert len(levels) > 1, layer.name
        assert len(levels) <= 1 << architecture.activation_bits(layer.scale, precision)


@pytest.mark.parametrize(("family", "variant"), [item for item in NETWORKS if "nested" not in item[1]])
def test_eight_bits_stay_close_to_float(
    family: str, variant: str, make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]
) -> None:
    """The same tensors at both precisions. Streams get room for their sums: clipping is not what is looked at."""
    architecture, precision = network(family, variant), Precision(8, 8)
    tensors = make_tensors(architecture, precision)
    for scale in architecture.scales:
        if scale.startswith(("stream", "pool")):
            tensors[f"{scale}.activation_log_step"] += np.float32(2)
    exact = FloatNetwork(architecture, tensors).logits(pictures)
    integer = IntegerNetwork(architecture, precision, tensors).logits(pictures)
    assert np.corrcoef(exact.ravel(), integer.ravel())[0, 1] > 0.97


class TestOneSignedBit:
    """A binary convolution pads with −step: by hand on a single pixel."""

    @pytest.fixture
    def architecture(self) -> Architecture:
        builder = Builder((1, 1, 1))
        x = builder.conv("stem", INPUT, 4, 1, relu=False, norm=False, wide=True, pinned=True)
        x = builder.conv("conv", builder.recode("narrow", x), 4, 3, norm=False, relu=False, wide=True)
        builder.classifier(builder.avgpool(x), 2)
        return Architecture("by hand", (1, 1, 1), 2, builder.layers)

    @pytest.fixture
    def tensors(self, architecture: Architecture, make_tensors: MakeTensors) -> Tensors:
        tensors = make_tensors(architecture, Precision(1, 1))
        tensors["stem.weight"][:] = np.array([1, 1, -1, -1], np.float32).reshape(4, 1, 1, 1) / 64
        tensors["stem.weight_log_step"][:] = np.log(1 / 64)
        tensors["stem.bias"][:] = 0
        tensors["narrow.activation_offset"][:] = 0
        tensors["conv.weight"][:] = 1
        tensors["conv.bias"][:] = 0
        for scale in architecture.scales:
            tensors[f"{scale}.activation_log_step"][:] = 0
        tensors["stem.activation_log_step"][:] = np.log(1 / 64 / 255)
        return tensors

    def test_it_pads_with_minus_one(self, architecture: Architecture, tensors: Tensors) -> None:
        picture = np.full((1, 1, 1, 1), 255, np.uint8)
        stored = IntegerNetwork(architecture, Precision(1, 1), tensors).activations(picture)
        assert stored["narrow"].ravel().tolist() == [2, 2, 0, 0]
        assert stored["conv"].ravel().tolist() == [128 + 2 - 2 - 4 * 8] * 4  # four centres, 32 padded pixels of −1

    @pytest.mark.parametrize("name", ["W1A1", "W2A1"])
    def test_the_file_does_the_same(
        self, name: str, architecture: Architecture, tensors: Tensors, make_tensors: MakeTensors
    ) -> None:
        precision, pictures = Precision.parse(name), np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
        known = make_tensors(architecture, precision) | tensors
        model = to_onnx(architecture, precision, known)
        assert check(serialize(model), architecture, precision, known, pictures).bit_equal

    def test_weights_of_more_bits_have_it_padded_beforehand(
        self, architecture: Architecture, make_tensors: MakeTensors
    ) -> None:
        precision = Precision(2, 1)
        model = to_onnx(architecture, precision, make_tensors(architecture, precision))
        pad = next(node for node in model.graph.node if node.op_type == "Pad")
        convolution = next(node for node in model.graph.node if node.output[0] == "conv")
        assert pad.output[0] == convolution.input[0]
        assert helper.get_node_attr_value(convolution, "pads") == [0, 0, 0, 0]


def test_a_hidden_layer_may_read_a_row(make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]) -> None:
    """No table of ours has two hidden layers; a row as input, narrow activations and a signed one must work too."""
    builder = Builder((1, 16, 16))
    x = builder.conv("conv", INPUT, 4, 3, 2, pinned=True)
    x = builder.linear("first", builder.avgpool(x), 8)
    builder.classifier(builder.linear("second", x, 8, wide=True), 10)
    architecture, precision = Architecture("by hand", (1, 16, 16), 10, builder.layers), Precision(3, 4)
    tensors = make_tensors(architecture, precision)
    assert check(
        serialize(to_onnx(architecture, precision, tensors)), architecture, precision, tensors, pictures
    ).bit_equal


def test_group_norm_by_hand(make_tensors: MakeTensors) -> None:
    """One group of four channels of one pixel: mean and deviation of four numbers."""
    layer = Layer(
        "conv", Kind.CONV, (INPUT,), (1, 1, 1), (4, 1, 1), norm=True, relu=False, scale="conv", wide=True, pinned=True
    )
    linear = Layer("classifier", Kind.LINEAR, ("conv",), (4, 1, 1), (2,), pinned=True)
    architecture = Architecture("by hand", (1, 1, 1), 2, (layer, linear), Norm.GROUP)
    tensors = make_tensors(architecture, FP32)
    tensors["conv.gamma"][:], tensors["conv.beta"][:] = (1, 2, -1, 0), (0, 0, 0, 7)
    stored = FloatNetwork(architecture, tensors).activations(np.full((1, 1, 1, 1), 255, np.uint8))["conv"].ravel()
    assert stored.tolist() == pytest.approx([0, 0, 0, 7], abs=1e-6)  # filters of one weight standardize to 0


@pytest.mark.parametrize(("finer", "operator"), [(0, "Conv"), (4, "ConvInteger")])
def test_sums_beyond_float32_are_taken_in_integers(
    finer: int, operator: str, make_tensors: MakeTensors, pictures: npt.NDArray[np.uint8]
) -> None:
    """1152 inputs times 64 times 255 pass 2^24 once a finer step makes every code a large one."""
    architecture, precision = cnn4(width=2, input_shape=(1, 16, 16), norm=Norm.GROUP), Precision(8, 8)
    tensors = make_tensors(architecture, precision)
    tensors["conv4.weight_log_step"] -= np.float32(finer)
    model = to_onnx(architecture, precision, tensors)
    assert next(node for node in model.graph.node if node.output[0] == "conv4/products").op_type == operator
    assert check(serialize(model), architecture, precision, tensors, pictures).bit_equal
