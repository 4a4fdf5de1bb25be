"""The network as a function of its table: tensors, gradients, stages."""

import weakref

import numpy as np
import pytest
import torch

from edge.data import Dataset
from edge.training.calibration import StepSearch
from edge.training.network import Network, _convolve, _Flat
from edge.training.quantizers import affine_weight
from edge.training.task import TrainerError
from protocol.architecture import LOG_STEPS, Architecture, Kind, Layer, Norm, Role
from protocol.errors import Unsupported
from protocol.initial import initial_tensors
from protocol.networks import binary18, cnn4, fedzip_cnn, mobile, resnet18, vgg_small
from protocol.precision import Precision
from protocol.weights import coded_weight

PRECISIONS = ("fp32", "W8A8", "W4A8", "W3A8", "W2A8", "W1A8", "W4A32", "W16A32", "W4A4", "W3A3", "W2A2", "W1A1")
SMALL = {
    "resnet18": resnet18(width=0.0625, input_shape=(1, 16, 16)),
    "resnet18-7x7": resnet18(width=0.0625, stem="7x7", input_shape=(1, 16, 16)),
    "binary18": binary18(width=0.0625, input_shape=(1, 16, 16)),
    "mobile": mobile(width=0.125, input_shape=(1, 16, 16)),
    "vgg-small": vgg_small(width=0.0625, input_shape=(1, 16, 16)),
    "cnn4": cnn4(width=0.25, input_shape=(1, 16, 16)),
    "fedzip-cnn": fedzip_cnn(width=0.125, input_shape=(1, 16, 16)),
    "resnet18-group": resnet18(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP),
    "binary18-group-nested": binary18(width=0.125, input_shape=(1, 16, 16), norm=Norm.GROUP, nested=True),
    "mobile-nested": mobile(width=0.125, input_shape=(1, 16, 16), nested=True),
}
CASES = [
    (table, name)
    for table, architecture in SMALL.items()
    for name in PRECISIONS
    if not (architecture.nested and name.startswith("W16"))
]


@pytest.mark.parametrize(("table", "name"), CASES)
def test_tensors_go_in_and_come_out_bit_for_bit_under_the_wire_s_names(table: str, name: str) -> None:
    architecture, precision = SMALL[table], Precision.parse(name)
    tensors = initial_tensors(architecture, precision, seed=1)
    returned = Network(architecture, precision, tensors).tensors()
    assert list(returned) == [spec.name for spec in architecture.tensors(precision)]
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


@pytest.mark.parametrize(("table", "name"), CASES)
def test_whatever_is_trained_gets_a_gradient(table: str, name: str, digits: Dataset) -> None:
    architecture, precision = SMALL[table], Precision.parse(name)
    model = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    pictures, labels = torch.from_numpy(digits.pictures_NCHW[:16]), torch.from_numpy(digits.labels_N[:16])
    with torch.no_grad():
        model(pictures, model.by_batch, StepSearch(model))
    torch.nn.functional.cross_entropy(model(pictures, model.by_batch), labels).backward()  # type: ignore[no-untyped-call]
    idle = {Role.MEAN, Role.VARIANCE} | ({Role.CODE_LOG_STEP} if precision.weight_bits == 32 else set())
    moved = set()
    for spec in model.specs:
        gradient = model.values[spec.name].grad
        assert (gradient is None) is (spec.role in idle), spec.name
        if gradient is not None:
            assert torch.isfinite(gradient).all(), spec.name
            moved |= {spec.role} if gradient.any() else set()
    assert moved == {spec.role for spec in model.specs} - idle


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("table", SMALL)
def test_weights_are_those_of_the_shared_definition_in_every_bit(table: str, bits: int) -> None:
    architecture, precision = SMALL[table], Precision(bits, 8)
    if architecture.nested and bits == 7:
        with pytest.raises(Unsupported, match="nested codes of 7 bits"):
            Network(architecture, precision, initial_tensors(architecture, precision, seed=2))
        return
    tensors = initial_tensors(architecture, precision, seed=2)
    rng = np.random.default_rng(3)
    for spec in architecture.tensors(precision):
        if spec.role in LOG_STEPS:
            tensors[spec.name] += (0.3 * rng.normal(size=spec.shape)).astype(np.float32)
    network = Network(architecture, precision, tensors)
    for layer in architecture.layers:
        if layer.weight_shape is not None:
            coded = coded_weight(architecture, layer, precision, tensors)
            expected = coded.codes_OX.astype(np.float32) * coded.step_O.reshape(-1, *(1,) * (coded.codes_OX.ndim - 1))
            assert np.array_equal(network.weight(layer).detach().numpy(), expected), layer.name
            assert network.weight_bits(layer.name) == coded.bits


def test_networks_over_the_same_tensors_share_them(network: Architecture) -> None:
    wide, narrow = Precision.parse("W8A8"), Precision.parse("W2A8")
    first = Network(network, wide, initial_tensors(network, wide, seed=1))
    own = Network(network, narrow, initial_tensors(network, narrow, seed=1)).values
    shared = {name: value for name, value in first.values.items() if name.endswith((".weight", ".gamma"))}
    second = Network.over(network, narrow, own | shared)
    assert second.values["stem.conv.weight"] is first.values["stem.conv.weight"]
    assert second.values["classifier.bias"] is own["classifier.bias"]
    with pytest.raises(TrainerError, match=r"stem\.conv\.gamma has shape \(4, 1\): expected \(4,\)"):
        Network.over(network, narrow, own | {"stem.conv.gamma": own["stem.conv.gamma"].detach()[:, None]})


def test_a_method_may_replace_how_weights_are_made(network: Architecture, digits: Dataset) -> None:
    precision = Precision.parse("W2A32")
    model = Network(network, precision, initial_tensors(network, precision, seed=1))
    asked = []

    def weigh(layer: Layer) -> torch.Tensor:
        asked.append(layer.name)
        return affine_weight(model.latent(layer), 8)

    pictures = torch.from_numpy(digits.pictures_NCHW[:4])
    with torch.no_grad():
        assert not torch.equal(model(pictures, model.by_batch, None, weigh), model(pictures, model.by_batch))
    assert asked == [layer.name for layer in network.layers if layer.weight_shape is not None]


def test_signs_are_padded_with_minus_the_step() -> None:
    architecture, precision = SMALL["binary18"], Precision.parse("W1A1")
    model = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    layer, other = architecture.by_name["layer1.0.conv"], architecture.by_name["stem.conv"]
    x = torch.ones(2, 4, 16, 16)
    padded = model._padded(layer, x)
    step = model.value("layer1.0.in", Role.ACTIVATION_LOG_STEP)
    assert padded.shape == (2, 4, 18, 18)
    assert torch.equal(padded[:, :, 1:-1, 1:-1], x)
    assert bool((padded[:, :, 0] == -step.detach().double().exp().float()).all())
    (along_step,) = torch.autograd.grad(padded.sum(), step)
    assert float(along_step) == pytest.approx(-2 * 4 * (18**2 - 16**2) * float(step.detach().exp()), rel=1e-5)
    assert model._padded(other, x) is x


def test_group_normalisation_is_each_picture_s_own(digits: Dataset) -> None:
    architecture, precision = SMALL["resnet18-group"], Precision.parse("W4A8")
    model = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    pictures = torch.from_numpy(digits.pictures_NCHW[:8])
    with torch.no_grad():
        together = model(pictures, model.by_batch)
        alone = torch.cat([model(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("log_step", [-200.0, 200.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.weight_log_step", "stream1.activation_log_step"])
def test_a_step_that_is_none_is_named(name: str, log_step: float, network: Architecture) -> None:
    precision = Precision.parse("W4A8")
    model = Network(network, precision, initial_tensors(network, precision, seed=1))
    model.check_steps()
    with torch.no_grad():
        model.values[name][-1] = log_step
    with pytest.raises(TrainerError, match=rf"tensor {name} stands for a step of (0|nan|inf): expected a positive"):
        model.check_steps()


def test_what_no_later_layer_reads_is_let_go(digits: Dataset) -> None:
    architecture, precision = SMALL["vgg-small"], Precision.parse("fp32")
    model = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    seen: list[weakref.ref[torch.Tensor]] = []

    def watch(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        result = model.activate(layer, x)
        alive.append(sum(ref() is not None for ref in seen))
        seen.append(weakref.ref(result))
        return result

    alive: list[int] = []
    with torch.no_grad():
        model(torch.from_numpy(digits.pictures_NCHW[:2]), activate=watch)
    assert max(alive) <= 1


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


def test_the_gradient_of_flattened_pictures_comes_back_channels_last() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    rows = _Flat.apply(x)  # type: ignore[no-untyped-call]
    assert torch.equal(rows, x.flatten(1))
    layouts: list[bool] = []
    x.register_hook(lambda gradient: layouts.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    rows.backward(upstream := torch.randn(2, 60))  # type: ignore[no-untyped-call]
    assert layouts == [True]
    assert torch.equal(x.grad, upstream.view(2, 3, 4, 5))  # type: ignore[arg-type]
