"""What is trained is what is shipped: the fake-quantized network against the exporter's integer reference."""

import numpy as np
import pytest
import torch

from edge.data import Dataset
from edge.training.calibration import StepSearch, best_log_step
from edge.training.moments import MomentPool
from edge.training.network import Network, _convolve
from edge.training.quantizers import step_of
from edge.training.task import TrainerError
from export.reference import FloatNetwork, IntegerNetwork
from protocol.architecture import Architecture, Kind, Layer, Role, Tensors, resnet18
from protocol.initial import initial_tensors
from protocol.precision import Precision, activation_range

PRECISIONS = ("fp32", "W8A8", "W4A8", "W3A8", "W2A8", "W1A8")


def settled(architecture: Architecture, precision: Precision, pictures: torch.Tensor) -> Tensors:
    """A fresh model with steps and moments that fit the pictures, and gains of both signs."""
    tensors = initial_tensors(architecture, precision, seed=3)
    rng = np.random.default_rng(4)
    for name in tensors:
        if name.endswith((".gamma", ".beta", ".bias")):
            tensors[name] = (tensors[name] + 0.5 * rng.normal(size=tensors[name].shape)).astype(np.float32)
    network = Network(architecture, precision, tensors)
    with torch.no_grad():
        network(pictures, network.by_batch, StepSearch(network))
        pool = MomentPool(network)
        network(pictures, pool)
    return network.tensors() | pool.tensors()


@pytest.mark.parametrize("stem", ["3x3", "7x7"])
@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_each_layer_computes_what_the_exported_one_does(name: str, stem: str, digits: Dataset) -> None:
    architecture, precision = resnet18(width=0.0625, stem=stem, input_shape=(1, 16, 16)), Precision.parse(name)
    pictures = digits.pictures_NCHW[:64]
    tensors = settled(architecture, precision, torch.from_numpy(pictures))
    network = Network(architecture, precision, tensors)
    reference = IntegerNetwork(architecture, precision, tensors).activations(pictures)

    def compare(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Judge a layer, then hand the reference's output on, so that the next is judged on equal inputs."""
        step = step_of(network.value(layer.scale, Role.ACTIVATION_LOG_STEP))
        codes = (network.activate(layer, x) / step).round().numpy()
        expected = reference[layer.name].astype(np.float32) - (128 if layer.signed else 0)
        assert np.abs(codes - expected).max() <= 1, layer.name
        # The exporter rounds the folded offset to whole sums: a value just beside a boundary may land beyond it.
        allowed = {Kind.CONV: 0.25 if precision.weight_bits < 4 else 0.08, Kind.ADD: 0.0, Kind.AVGPOOL: 0.03}
        assert (codes != expected).mean() <= allowed[layer.kind], layer.name
        return torch.from_numpy(expected) * step

    with torch.no_grad():
        logits = network(torch.from_numpy(pictures), activate=compare).numpy()
    np.testing.assert_allclose(logits, reference[architecture.layers[-1].name], rtol=1e-4, atol=1e-2)


def test_at_fp32_the_trained_network_is_the_exported_one(network: Architecture, digits: Dataset) -> None:
    precision, pictures = Precision.parse("fp32"), digits.pictures_NCHW[:64]
    tensors = settled(network, precision, torch.from_numpy(pictures))
    with torch.no_grad():
        logits = Network(network, precision, tensors)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(logits, FloatNetwork(network, tensors).logits(pictures), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PRECISIONS)
def test_tensors_go_in_and_come_out_bit_for_bit_under_the_wire_s_names(name: str, network: Architecture) -> None:
    precision = Precision.parse(name)
    tensors = initial_tensors(network, precision, seed=1)
    returned = Network(network, precision, tensors).tensors()
    assert list(returned) == [spec.name for spec in network.tensors(precision)]
    for key, value in tensors.items():
        assert np.array_equal(returned[key], value)
        assert returned[key].flags.c_contiguous
        assert not np.shares_memory(returned[key], value)


def test_a_missing_or_misshaped_tensor_is_named(network: Architecture) -> None:
    precision = Precision.parse("W4A8")
    tensors = initial_tensors(network, precision, seed=1)
    gamma = tensors.pop("stem.conv.gamma")
    with pytest.raises(TrainerError, match=r"stem\.conv\.gamma is missing: expected float32\[4\]"):
        Network(network, precision, tensors)
    with pytest.raises(TrainerError, match=r"stem\.conv\.gamma has shape \(3,\): expected \(4,\)"):
        Network(network, precision, tensors | {"stem.conv.gamma": gamma[:3]})


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_tensor_but_the_moments_gets_a_gradient(name: str, network: Architecture, digits: Dataset) -> None:
    precision = Precision.parse(name)
    model = Network(network, precision, initial_tensors(network, precision, seed=1))
    logits = model(torch.from_numpy(digits.pictures_NCHW[:16]), model.by_batch)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(digits.labels_N[:16])).backward()  # type: ignore[no-untyped-call]
    for key, value in model.values.items():
        trained = not key.endswith((".mean", ".variance"))
        assert (value.grad is not None and bool((value.grad != 0).any())) is trained, key


def test_moments_over_batches_are_those_of_all_values_at_once(network: Architecture, digits: Dataset) -> None:
    precision = Precision.parse("fp32")
    model = Network(network, precision, initial_tensors(network, precision, seed=1))
    whole: dict[str, list[np.ndarray]] = {}

    def record(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        whole.setdefault(layer.name, []).append(x.double().numpy())
        return model.by_batch(layer, x)

    pool = MomentPool(model)
    with torch.no_grad():
        for part in (slice(0, 50), slice(50, 64), slice(64, 65)):
            pictures = torch.from_numpy(digits.pictures_NCHW[part])
            model(pictures, record)
            model(pictures, pool)
    moments = pool.tensors()
    for name, parts in whole.items():
        values = np.concatenate(parts)
        np.testing.assert_allclose(moments[f"{name}.mean"], values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments[f"{name}.variance"], values.var((0, 2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_searched_step_errs_less_than_its_neighbours(bits: int, signed: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 5000)).astype(np.float32))
    low, high = activation_range(bits, signed=signed)

    def error(step: float) -> float:
        target = x if signed else x.relu()
        return float(((x / step).round().clamp(low, high) * step - target).square().mean())

    best = float(best_log_step(x, bits, signed=signed).exp())
    assert error(best) <= min(error(best * factor) for factor in (0.5, 0.8, 1.25, 2.0))


def test_steps_of_values_that_are_all_zero_stay_positive() -> None:
    assert float(best_log_step(torch.zeros(2, 3), 8, signed=False).exp()) > 0


@pytest.mark.parametrize("channels", [4, 8, 12])
def test_a_strided_1x1_convolution_has_the_gradients_of_its_definition(channels: int) -> None:
    """The kernel torch would take for narrow inputs wrote past its buffer (DECISIONS.md, 23)."""
    layer = Layer("p", Kind.CONV, ("input",), (channels, 8, 8), (8, 4, 4), kernel=1, stride=2)
    x = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, channels, 1, 1, generator=torch.Generator().manual_seed(1), requires_grad=True)
    _convolve(layer, x.contiguous(memory_format=torch.channels_last), weight).square().sum().backward()
    by_hand = torch.einsum("oc,nchw->nohw", weight.detach()[:, :, 0, 0], x[:, :, ::2, ::2])
    expected = torch.einsum("nohw,nchw->oc", 2 * by_hand, x[:, :, ::2, ::2])
    torch.testing.assert_close(weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)
