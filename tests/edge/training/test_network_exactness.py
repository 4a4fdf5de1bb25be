"""What is trained is what is shipped: the fake-quantized network against the exporter's integer reference."""

import numpy as np
import pytest
import torch

from edge.data import Dataset
from edge.training.calibration import StepSearch
from edge.training.moments import MomentPool
from edge.training.network import Network
from edge.training.quantizers import step_of
from export.passes import integer_numbers
from export.reference import FloatNetwork, IntegerNetwork
from protocol.architecture import Architecture, Kind, Layer, Norm, Role, Tensors
from protocol.initial import initial_tensors
from protocol.networks import binary18, cnn4, fedzip_cnn, mobile, resnet18, vgg_small
from protocol.precision import Precision

SMALL = {
    "resnet18": resnet18(width=0.0625, input_shape=(1, 16, 16)),
    "resnet18-7x7": resnet18(width=0.0625, stem="7x7", input_shape=(1, 16, 16)),
    "resnet18-nested": resnet18(width=0.0625, input_shape=(1, 16, 16), nested=True),
    "resnet18-group": resnet18(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP),
    "binary18": binary18(width=0.0625, input_shape=(1, 16, 16)),
    "cnn4-grey": cnn4(width=0.25, input_shape=(1, 16, 16), zero=76),
    "binary18-group-nested": binary18(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP, nested=True),
    "mobile": mobile(width=0.125, input_shape=(1, 16, 16)),
    "mobile-group": mobile(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP),
    "vgg-small-nested": vgg_small(width=0.0625, input_shape=(1, 16, 16), nested=True),
    "cnn4": cnn4(width=0.25, input_shape=(1, 16, 16)),
    "fedzip-cnn": fedzip_cnn(width=0.125, input_shape=(1, 16, 16)),
    "fedzip-cnn-nested": fedzip_cnn(width=0.125, input_shape=(1, 16, 16), nested=True),
}
PRECISIONS = ("W8A8", "W2A8", "W1A8", "W4A4", "W3A3", "W2A2", "W1A1")
SPREAD = frozenset(
    {Role.GAMMA, Role.BETA, Role.BIAS, Role.SHIFT_IN, Role.SHIFT_OUT, Role.SLOPE, Role.ACTIVATION_OFFSET}
)

ALLOWED = {
    Kind.CONV: 0.001,  # the exporter folds normalisation into one float32 factor: values beside a boundary may cross
    Kind.LINEAR: 0.005,
    Kind.AVGPOOL: 0.02,
    Kind.RECODE: 0.0,
    Kind.PRELU: 0.0,
    Kind.ADD: 0.0,
}
"""Share of levels that may differ by one when both networks read the same inputs."""


def settled(architecture: Architecture, precision: Precision, pictures: torch.Tensor) -> Tensors:
    """A fresh model with steps and moments that fit the pictures, gains of both signs, and offsets that are none."""
    tensors = initial_tensors(architecture, precision, seed=3)
    rng = np.random.default_rng(4)
    for spec in architecture.tensors(precision):
        if spec.role in SPREAD:
            tensors[spec.name] += (0.5 * rng.normal(size=spec.shape)).astype(np.float32)
    network = Network(architecture, precision, tensors)
    with torch.no_grad():
        network(pictures, network.by_batch, StepSearch(network))
        pool = MomentPool(network)
        network(pictures, pool)
    return network.tensors() | pool.tensors()


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("table", SMALL)
def test_each_layer_computes_what_the_exported_one_does(table: str, name: str, digits: Dataset) -> None:
    architecture, precision = SMALL[table], Precision.parse(name)
    pictures = digits.pictures_NCHW[:64]
    tensors = settled(architecture, precision, torch.from_numpy(pictures))
    network = Network(architecture, precision, tensors)
    stored = IntegerNetwork(architecture, precision, tensors).activations(pictures)
    codings = integer_numbers(architecture, precision, tensors).codings

    def compare(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Judge a layer, then hand the reference's output on, so that the next is judged on equal inputs."""
        step = step_of(network.value(layer.scale, Role.ACTIVATION_LOG_STEP))
        codes = (network.activate(layer, x) / step).round().numpy()
        expected = stored[layer.name].astype(np.float32) - codings[layer.name].zero
        assert len(np.unique(expected)) > 1, layer.name
        apart = np.abs(codes - expected)
        assert (apart > 0).mean() <= ALLOWED[layer.kind], layer.name
        assert apart.max() <= 1, layer.name
        return torch.from_numpy(expected) * step

    with torch.no_grad():
        logits = network(torch.from_numpy(pictures), activate=compare).numpy()
    np.testing.assert_allclose(logits, stored[architecture.layers[-1].name], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", ["W8A8", "W1A8", "W4A4", "W1A1"])
@pytest.mark.parametrize("table", ["resnet18-nested", "binary18", "mobile", "vgg-small-nested", "fedzip-cnn"])
def test_both_name_the_same_class(table: str, name: str, digits: Dataset) -> None:
    architecture, precision = SMALL[table], Precision.parse(name)
    tensors = settled(architecture, precision, torch.from_numpy(digits.pictures_NCHW))
    with torch.no_grad():
        ours = Network(architecture, precision, tensors)(torch.from_numpy(digits.pictures_NCHW)).argmax(1).numpy()
    theirs = IntegerNetwork(architecture, precision, tensors).logits(digits.pictures_NCHW).argmax(1)
    assert len(np.unique(theirs)) > 1
    assert (ours == theirs).mean() >= 0.99  # an untrained network decides by little


@pytest.mark.parametrize("table", SMALL)
def test_at_fp32_the_trained_network_is_the_exported_one(table: str, digits: Dataset) -> None:
    architecture, precision, pictures = SMALL[table], Precision.parse("fp32"), digits.pictures_NCHW[:64]
    tensors = settled(architecture, precision, torch.from_numpy(pictures))
    with torch.no_grad():
        logits = Network(architecture, precision, tensors)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(logits, FloatNetwork(architecture, tensors).logits(pictures), rtol=1e-3, atol=1e-3)
