"""Networks of bits: what becomes an operator, and that kernels, standard operators and reference give the same bits."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

from export import ort
from export.check import check
from export.errors import CheckFailed, ExportError
from export.passes import binary, integer_numbers, to_onnx
from export.reference import IntegerNetwork
from export.writer import LOGITS, serialize
from protocol import operators
from protocol.architecture import INPUT, Architecture, Kind, Norm, Tensors
from protocol.networks import binary18, cnn4, mobile, resnet18
from protocol.networks.builder import Builder
from protocol.precision import Precision

_binary = pytest.importorskip("protocol.operators._binary", reason="no C compiler was there at installation")

MakeTensors = Callable[[Architecture, Precision], Tensors]
Pictures = npt.NDArray[np.uint8]

W1A1 = Precision(1, 1)
SHAPE = (1, 16, 16)
NETWORKS = {
    "binary18": binary18(width=0.125, input_shape=SHAPE),
    "binary18-large": binary18(width=0.0625, stem="3x3s2", input_shape=(3, 40, 36)),
    "resnet18": resnet18(width=0.125, input_shape=SHAPE),
    "cnn4-nested": cnn4(width=0.25, input_shape=SHAPE, nested=True),
}


@pytest.fixture(params=_binary.paths())
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    usual = _binary.chosen()
    _binary.choose(request.param)
    yield request.param
    _binary.choose(usual)


@pytest.fixture
def pictures() -> Pictures:
    return np.random.default_rng(3).integers(0, 256, (7, *SHAPE), dtype=np.uint8)


def kinds(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


class TestContract:
    """For every path of the kernels that this processor has."""

    @pytest.mark.parametrize("name", NETWORKS)
    def test_kernels_and_reference_agree(self, name: str, path: str, make_tensors: MakeTensors) -> None:
        network = NETWORKS[name]
        tensors = make_tensors(network, W1A1)
        shape = (5, *network.input_shape)
        shown = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        model = serialize(to_onnx(network, W1A1, tensors))
        assert check(model, network, W1A1, tensors, shown).bit_equal, path

    def test_several_threads_give_the_same_bits(self, path: str, make_tensors: MakeTensors, pictures: Pictures) -> None:
        network = NETWORKS["binary18"]
        model = serialize(to_onnx(network, W1A1, make_tensors(network, W1A1)))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 3
        options.register_custom_ops_library(_binary.__file__)
        several = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        one = ort.run(ort.session(model, standard=True), pictures, [LOGITS])[0]
        assert np.array_equal(ort.run(several, pictures, [LOGITS])[0], one), path


class TestWhatBecomesAnOperator:
    def test_a_block_is_one(self, make_tensors: MakeTensors) -> None:
        network = NETWORKS["binary18"]
        found = kinds(to_onnx(network, W1A1, make_tensors(network, W1A1)))
        assert found["BinaryResidual"] == 16
        assert found["BinaryConv"] == found["PRelu"] == 0
        assert found["QLinearConv"] == 1 + 3  # stem and projections keep 8 bits

    def test_convolutions_that_read_bits_are_one_each(self, make_tensors: MakeTensors) -> None:
        network = NETWORKS["resnet18"]
        found = kinds(to_onnx(network, W1A1, make_tensors(network, W1A1)))
        assert found["BinaryConv"] == 16 + 3
        assert found["QLinearConv"] == 1

    @pytest.mark.parametrize("precision", ["W1A8", "W1A2", "W2A1", "W8A1"])
    def test_more_bits_than_one_are_none(self, precision: str, make_tensors: MakeTensors) -> None:
        network, wanted = NETWORKS["binary18"], Precision.parse(precision)
        model = to_onnx(network, wanted, make_tensors(network, wanted))
        assert not model.functions
        assert {item.domain for item in model.opset_import} == {""}

    @pytest.mark.parametrize(
        "network", [mobile(width=0.25, input_shape=SHAPE), binary18(width=0.125, input_shape=SHAPE, norm=Norm.GROUP)]
    )
    def test_depthwise_and_group_normalised_ones_stay_what_they_are(
        self, network: Architecture, make_tensors: MakeTensors
    ) -> None:
        graph = integer_numbers(network, W1A1, make_tensors(network, W1A1))
        for operator in binary.plan(graph).operators.values():
            assert operator.conv.groups == 1
            assert graph.nodes[operator.conv.name].norm is None

    def test_narrowed_values_that_another_row_reads_are_stored(self, make_tensors: MakeTensors) -> None:
        """Average pooling reads them beside the convolution."""
        builder = Builder(SHAPE)
        x = builder.conv("stem", INPUT, 8, 3, wide=True, pinned=True)
        narrow = builder.recode("narrow", x)
        y = builder.conv("conv", narrow, 8, 3, relu=False, scale="stream", wide=True)
        z = builder.conv("wide", narrow, 8, 1, relu=False, scale="stream", wide=True, pinned=True)
        builder.classifier(builder.avgpool(builder.add("add", y, z, scale="stream")), 10)
        network = Architecture("by hand", SHAPE, 10, builder.layers)
        tensors = make_tensors(network, W1A1)
        plan = binary.plan(integer_numbers(network, W1A1, tensors))
        assert plan.absorbed == frozenset()
        assert plan.operators["conv"].x == "narrow"
        shown = np.random.default_rng(2).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
        assert check(serialize(to_onnx(network, W1A1, tensors)), network, W1A1, tensors, shown).bit_equal

    def test_of_two_that_are_added_one_is_the_others_shortcut(self, make_tensors: MakeTensors) -> None:
        builder = Builder(SHAPE)
        x = builder.conv("stem", INPUT, 8, 3, relu=False, scale="stream", wide=True, pinned=True)
        narrow = builder.recode("narrow", x)
        y, z = (builder.conv(name, narrow, 8, 3, relu=False, scale="stream", wide=True) for name in ("left", "right"))
        total = builder.add("add", y, z, scale="stream", relu=False)
        builder.classifier(builder.avgpool(builder.prelu("prelu", total, scale="stream")), 10)
        network = Architecture("by hand", SHAPE, 10, builder.layers)
        tensors = make_tensors(network, W1A1)
        found = binary.plan(integer_numbers(network, W1A1, tensors)).operators
        assert {name: operator.shortcut for name, operator in found.items()} == {"prelu": "right", "right": None}
        shown = np.random.default_rng(2).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
        assert check(serialize(to_onnx(network, W1A1, tensors)), network, W1A1, tensors, shown).bit_equal

    def test_thresholds_are_where_the_reference_has_them(self, make_tensors: MakeTensors) -> None:
        network = NETWORKS["binary18"]
        tensors = make_tensors(network, W1A1)
        row = next(row for row in network.layers if row.kind is Kind.RECODE)
        offset_C = tensors[f"{row.name}.activation_offset"]
        offset_C[:3] = (-1e9, 1e9, 0)
        graph = integer_numbers(network, W1A1, tensors)
        found = binary.thresholds(graph, graph.architecture.by_name[row.name])
        assert found[:3].tolist() == [0, 256, 128]
        step = graph.coding_in(graph.architecture.by_name[row.name]).step
        assert found[3] == np.ceil(offset_C[3] / step) + 128


class TestTheFile:
    def test_it_is_the_same_with_and_without_the_library(
        self, make_tensors: MakeTensors, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = NETWORKS["binary18"]
        tensors = make_tensors(network, W1A1)
        model = serialize(to_onnx(network, W1A1, tensors))
        monkeypatch.setenv("BITFLEET_KERNEL", "plain")
        assert operators.operators("1.28.0").library is None
        assert serialize(to_onnx(network, W1A1, tensors)) == model

    def test_weights_take_a_bit_each(self, make_tensors: MakeTensors) -> None:
        network = resnet18()
        model = serialize(to_onnx(network, W1A1, make_tensors(network, W1A1)))
        assert len(model) < 1.52e6

    def test_a_function_that_is_not_ours_is_refused(self, make_tensors: MakeTensors, pictures: Pictures) -> None:
        network = NETWORKS["binary18"]
        tensors = make_tensors(network, W1A1)
        model = to_onnx(network, W1A1, tensors)
        del model.functions[0].node[-1]
        with pytest.raises(CheckFailed, match=r"defines bitfleet\.Binary\w+ otherwise than the exporter does"):
            check(serialize(model), network, W1A1, tensors, pictures)

    def test_a_changed_weight_is_found_in_its_block(self, make_tensors: MakeTensors, pictures: Pictures) -> None:
        network = NETWORKS["binary18"]
        tensors = make_tensors(network, W1A1)
        model = to_onnx(network, W1A1, tensors)
        change(model, "layer2.1.conv.bias", lambda bias_O: bias_O + 40)
        with pytest.raises(CheckFailed, match=r"first in layer layer2\.1\.prelu: "):
            check(serialize(model), network, W1A1, tensors, pictures)


def change(model: ModelProto, name: str, how: Callable[[npt.NDArray[np.int32]], npt.NDArray[np.int32]]) -> None:
    constant = next(item for item in model.graph.initializer if item.name == name)
    constant.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(constant)).astype(np.int32), name))


class TestRefused:
    """A node that no exporter of ours writes ends in an error, not in a crash."""

    @pytest.fixture
    def model(self, make_tensors: MakeTensors) -> ModelProto:
        return to_onnx(NETWORKS["binary18"], W1A1, make_tensors(NETWORKS["binary18"], W1A1))

    @pytest.mark.parametrize(
        ("attribute", "values"),
        [
            ("strides", [1, 2]),
            ("strides", [0, 0]),
            ("levels", 3),
            ("low", -1),
            ("high", 256),
        ],
    )
    def test_attributes(self, model: ModelProto, attribute: str, values: int | list[int]) -> None:
        node = next(node for node in model.graph.node if node.op_type == "BinaryResidual")
        found = next(item for item in node.attribute if item.name == attribute)
        if isinstance(values, int):
            found.i = values
        else:
            del found.ints[:]
            found.ints.extend(values)
        with pytest.raises(ExportError, match="binary convolution"):
            ort.session(serialize(model))

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("shape/8x8x3x3", [8, 8, 9, 9]),
            ("shape/8x8x3x3", [8, 8, 3]),
            ("shape/8x8x3x3", [1 << 40, 8, 3, 3]),
            ("shape/8x8x3x3", [8, 6, 3, 3]),
            ("edges_1", [0, 1, 1, 0, 0, 1, 2, 0]),
            ("edges_1", [0, -1, -1, 0, 0, -1, -1, 0]),
            ("edges_1", [0, 3, 3, 0, 0, 3, 3, 0]),
        ],
    )
    def test_shapes(self, model: ModelProto, name: str, values: list[int]) -> None:
        constant = next(item for item in model.graph.initializer if item.name == name)
        constant.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), name))
        with pytest.raises(ExportError, match="binary convolution"):
            ort.session(serialize(model))

    @pytest.mark.parametrize("name", ["threshold", "weight", "weight_scale", "bias"])
    def test_constants_of_another_size(self, model: ModelProto, name: str) -> None:
        constant = next(item for item in model.graph.initializer if item.name == f"layer1.0.conv.{name}")
        values = numpy_helper.to_array(constant)
        constant.CopyFrom(numpy_helper.from_array(values[:-1], constant.name))
        with pytest.raises(ExportError, match="another number of elements"):
            ort.session(serialize(model))

    def test_weights_that_are_computed(self, model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "BinaryResidual")
        index = list(node.input).index("layer1.0.conv.weight")
        node.input[index] = "pictures"
        with pytest.raises(ExportError, match=r"has to be constant|invalid"):
            ort.session(serialize(model))

    def test_runtimes_that_it_was_not_tried_with(self) -> None:
        answers = {version: _binary.runs_with(version) for version in ("1.23.0", "1.28.3", "1.29.0", "2.1", "", "x.y")}
        assert answers == {"1.23.0": True, "1.28.3": True, "1.29.0": False, "2.1": False, "": False, "x.y": False}
        assert operators.operators("1.29.0").library is None
        assert "were not tried with ONNX Runtime 1.29.0" in operators.operators("1.29.0").note
        assert _binary.chosen() in operators.operators(onnxruntime.__version__).note

    def test_paths_that_there_are_not(self) -> None:
        with pytest.raises(ValueError, match="'abacus': expected one of paths"):
            _binary.choose("abacus")
        with pytest.raises(TypeError):
            _binary.choose(3)


def test_the_reference_stores_what_no_model_shows(make_tensors: MakeTensors, pictures: Pictures) -> None:
    """Absorbed rows are computed nowhere but here, so they must not be constant."""
    network = NETWORKS["binary18"]
    stored = IntegerNetwork(network, W1A1, make_tensors(network, W1A1)).activations(pictures)
    assert len(np.unique(stored["layer1.1.in"])) == 2
    assert len(np.unique(stored["layer1.1.conv"])) > 10
