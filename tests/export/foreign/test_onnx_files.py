"""ONNX files as torch writes them, with normalisation folded and apart, and as it does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from foreign_resnet import Bottleneck, ResNet, lively, logits
from onnx import ModelProto, NodeProto, helper
from torch import nn

from export.errors import ExportError
from export.foreign import Preprocessing, adopt, read_checkpoint
from export.reference import FloatNetwork
from protocol.architecture import Shape
from protocol.networks import resnet18

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
NONE = Preprocessing()
SHAPE = (1, 32, 32)

# torch's other exporter needs a package more; this one is deprecated, and says so whenever it is used.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def written(network: nn.Module, path: Path, *, folded: bool = True, shape: Shape = SHAPE, **options: Any) -> Path:
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    options |= {} if folded else keep
    torch.onnx.export(network, (torch.zeros(1, *shape),), path, dynamo=False, **options)
    return path


@pytest.fixture(scope="session")
def model(foreign: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    """The small network with its normalisation folded."""
    return onnx.load(written(foreign, tmp_path_factory.mktemp("onnx") / "a.onnx"))


@pytest.mark.parametrize("folded", [True, False])
def test_logits_are_torchs_whether_normalisation_is_folded_or_not(
    foreign: nn.Module, digits: Digits, tmp_path: Path, folded: bool
) -> None:
    path = written(foreign, tmp_path / "a.onnx", folded=folded)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert ("BatchNormalization" in operators) != folded
    made = adopt(read_checkpoint(path), NONE)
    assert made.architecture == resnet18(width=0.25, input_shape=SHAPE)
    found = FloatNetwork(made.architecture, made.tensors).logits(digits[0][:40])
    np.testing.assert_allclose(found, logits(foreign, torch.from_numpy(digits[0][:40]).float() / 255), atol=1e-4)


def test_a_folded_weight_keeps_its_bits(model: ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "a.onnx")
    made = adopt(read_checkpoint(tmp_path / "a.onnx"), NONE)
    folded = FloatNetwork(made.architecture, made.tensors)._graph.nodes["stem.conv"]
    stem = model.graph.node[0]
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_allclose(folded.weight_OX, held[stem.input[1]], rtol=1e-7)
    np.testing.assert_array_equal(folded.bias_O, held[stem.input[2]])


def test_the_large_stem_and_the_pictures_size_are_the_files(digits: Digits, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = lively(ResNet(kernel=7, width=4, colours=3, classes=5))
    made = adopt(read_checkpoint(written(network, tmp_path / "a.onnx", shape=(3, 64, 64))), NONE)
    assert made.architecture == resnet18(width=0.0625, stem="7x7", input_shape=(3, 64, 64), classes=5)
    pictures = digits[0][:8].repeat(2, axis=2).repeat(2, axis=3).repeat(3, axis=1)
    found = FloatNetwork(made.architecture, made.tensors).logits(pictures)
    np.testing.assert_allclose(found, logits(network, torch.from_numpy(pictures).float() / 255), atol=1e-4)


def test_a_batch_of_any_size_is_no_obstacle(foreign: nn.Module, tmp_path: Path) -> None:
    axes = {"picture": {0: "batch"}}
    path = written(foreign, tmp_path / "a.onnx", input_names=["picture"], dynamic_axes=axes)
    assert read_checkpoint(path).input_shape == SHAPE


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ({"blocks": (3, 4, 6, 3)}, r"unsupported layers: layer1\.2\.bn1"),
        ({"blocks": (3, 4, 6, 3), "block": Bottleneck}, r"unsupported layers: layer1\.0\.bn3, layer1\.0\.conv3"),
    ],
)
def test_other_resnets_are_refused_by_their_layers(tmp_path: Path, shape: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ExportError, match=complaint):
        adopt(read_checkpoint(written(ResNet(**shape).eval(), tmp_path / "a.onnx")), NONE)


def node_of(model: ModelProto, operator: str, number: int = 0) -> NodeProto:
    return [node for node in model.graph.node if node.op_type == operator][number]


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def put_first(model: ModelProto, operator: str) -> None:
    picture = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["before" if name == picture else name for name in node.input]
    model.graph.node.insert(0, helper.make_node(operator, [picture], ["before"], name="strange"))


def put_last(model: ModelProto) -> None:
    logits = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Softmax", [logits], ["chances"], name="strange"))
    model.graph.output[0].name = "chances"


CHANGES: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "another activation": (
        lambda model: setattr(node_of(model, "Relu", 3), "op_type", "LeakyRelu"),
        "node /layer1/layer1.1/relu/Relu is LeakyRelu: expected Add or Relu",
    ),
    "preprocessing": (lambda model: put_first(model, "Neg"), "node strange is Neg: expected Conv"),
    "softmax": (put_last, "node strange is Softmax: expected nothing behind the classifier"),
    "stride": (
        lambda model: set_attribute(node_of(model, "Conv", 1), "strides", [2, 2]),
        r"node /layer1/layer1.0/conv1/Conv is Conv: expected strides = \[1, 1\], not \[2, 2\]",
    ),
    "dilation": (lambda model: set_attribute(node_of(model, "Conv", 4), "dilations", [2, 2]), r"dilations = \[1, 1\]"),
    "groups": (lambda model: set_attribute(node_of(model, "Conv", 4), "group", 4), "expected group = 1, not 4"),
    "no padding": (
        lambda model: set_attribute(node_of(model, "Conv"), "pads", [0] * 4),
        r"expected pads = \[1, 1, 1, 1\]",
    ),
    "scaled": (lambda model: set_attribute(node_of(model, "Gemm"), "alpha", 2.0), "expected alpha = 1.0, not 2.0"),
    "out of order": (lambda model: model.graph.node.extend([model.graph.node[3]]), "in the order of computation"),
    "two inputs": (lambda model: model.graph.input.extend([model.graph.input[0]]), "2 inputs and 1 outputs"),
    "no weights": (lambda model: model.graph.initializer.pop(), "in the order of computation"),
    "elsewhere": (
        lambda model: setattr(model.graph.initializer[0], "data_location", onnx.TensorProto.EXTERNAL),
        "lies in another file",
    ),
    "multiplied": (
        lambda model: setattr(node_of(model, "Add", 2), "op_type", "Mul"),
        "node /layer2/layer2.0/Add is Mul: expected Add or Relu",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_node_that_does_not_fit_is_named(model: ModelProto, tmp_path: Path, change: str) -> None:
    alter, complaint = CHANGES[change]
    changed = ModelProto()
    changed.CopyFrom(model)
    alter(changed)
    (tmp_path / "a.onnx").write_bytes(changed.SerializeToString())
    with pytest.raises(ExportError, match=complaint):
        adopt(read_checkpoint(tmp_path / "a.onnx"), NONE)


def test_another_epsilon_is_refused(tmp_path: Path) -> None:
    network = lively(ResNet(width=4))
    network.bn1.eps = 1e-3
    with pytest.raises(ExportError, match=r"node /bn1/\w+ is .* expected an epsilon of 1e-05, not 0.001"):
        read_checkpoint(written(network, tmp_path / "a.onnx", folded=False))
