"""The passes over numbers: quantization and the numbered cases of folding."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from export.arithmetic import multiplier, requantize
from export.errors import ExportError
from export.graph import BatchNorm, Coded, Graph, GroupNorm, Latent, build
from export.passes.fold_normalisation import MAX_BIAS, fold_float, fold_integer
from export.passes.quantize_weights import float_weights, quantize_weights
from protocol.architecture import NORM_EPSILON, Architecture, Norm, Role, Tensors
from protocol.networks import cnn4
from protocol.precision import FP32, Precision, code_book
from protocol.weights import coded_weight, standardized

MakeTensors = Callable[[Architecture, Precision], Tensors]
MakeCoded = Callable[..., Graph[Coded]]

W8A8, W2A8, W1A8 = Precision(8, 8), Precision(2, 8), Precision(1, 8)


def quantized(network: Architecture, precision: Precision, tensors: Tensors) -> Graph[Coded]:
    return quantize_weights(build(network, precision, tensors), tensors)


def latent(network: Architecture, tensors: Tensors) -> Graph[Latent]:
    return float_weights(build(network, FP32, tensors), tensors)


@pytest.fixture
def coded(one_convolution: Callable[..., Architecture], make_tensors: MakeTensors):
    """Quantized, not yet folded: one convolution whose normalisation the test chooses."""

    def make(precision: Precision = W8A8, *, pinned: bool = True, **norm: float) -> Graph[Coded]:
        network = one_convolution(pinned=pinned)
        graph = quantized(network, precision, make_tensors(network, precision))
        values = {"gamma": 1.0, "beta": 0.25, "mean": 0.5, "variance": 1.0} | norm
        moments = BatchNorm(*(np.full(4, values[name], np.float32) for name in ("gamma", "beta", "mean", "variance")))
        return graph.map(lambda _, node: replace(node, after=moments))

    return make


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_the_protocols_and_lie_in_its_code_book(
    small: Architecture, make_tensors: MakeTensors, bits: int
) -> None:
    precision = Precision(bits, 8)
    tensors = make_tensors(small, precision)
    node = quantized(small, precision, tensors).nodes["layer2.0.conv1"]
    expected = coded_weight(small, small.by_name["layer2.0.conv1"], precision, tensors)
    assert np.array_equal(node.codes_OX, expected.codes_OX)
    assert np.array_equal(node.step_O, expected.step_O)
    assert set(np.unique(node.codes_OX)) <= set(code_book(bits))


def test_float_weights_are_not_quantized(small: Architecture, make_tensors: MakeTensors) -> None:
    with pytest.raises(ExportError, match="fp32 weights stay float"):
        quantized(small, FP32, make_tensors(small, FP32))


def test_case_1_a_float_layer_multiplies_its_weights(
    one_convolution: Callable[..., Architecture], make_tensors: MakeTensors
) -> None:
    network = one_convolution()
    tensors = make_tensors(network, FP32)
    node = fold_float(latent(network, tensors)).nodes["conv"]
    gain = tensors["conv.gamma"] / np.sqrt(tensors["conv.variance"] + NORM_EPSILON)
    assert np.allclose(node.weight_OX, tensors["conv.weight"] * gain[:, None, None, None], rtol=1e-6)
    assert np.allclose(node.bias_O, tensors["conv.beta"] - tensors["conv.mean"] * gain, rtol=1e-5)


def test_case_1_a_float_layer_that_overflows_is_named(
    one_convolution: Callable[..., Architecture], make_tensors: MakeTensors
) -> None:
    network = one_convolution()
    tensors = make_tensors(network, FP32)
    tensors["conv.gamma"][:] = 3e38
    tensors["conv.variance"][:] = 0
    with pytest.raises(ExportError, match="layer conv: normalisation folded into the weights leaves float32"):
        fold_float(latent(network, tensors))


def test_case_2_a_positive_gain_scales_and_leaves_the_codes(coded: MakeCoded) -> None:
    graph = coded(gamma=2.0, variance=4.0 - NORM_EPSILON)
    before, after = graph.nodes["conv"], fold_integer(graph).nodes["conv"]
    assert np.array_equal(after.codes_OX, before.codes_OX)
    assert np.allclose(after.scale_O, before.step_O)
    assert np.array_equal(after.bias_O, np.rint((0.25 - 0.5) / (np.float32(1 / 255) * after.scale_O.astype(float))))


def test_case_3_a_negative_gain_flips_the_codes(coded: MakeCoded) -> None:
    graph = coded(gamma=-1.0)
    before, after = graph.nodes["conv"], fold_integer(graph).nodes["conv"]
    assert np.array_equal(after.codes_OX, -before.codes_OX)
    assert (after.scale_O > 0).all()
    assert (after.bias_O > 0).all()  # β − μ·g = 0.25 + 0.5


@pytest.mark.parametrize("gamma", [0.0, 1e-44, -1e-40])
@pytest.mark.parametrize("beta", [0.25, -3.0, 0.0, 1e-20])
def test_case_4_a_dead_channel_shows_its_constant(coded: MakeCoded, gamma: float, beta: float) -> None:
    graph = fold_integer(coded(gamma=gamma, beta=beta))
    node = graph.nodes["conv"]
    assert not node.codes_OX.any()
    shown = node.bias_O * (np.float32(1 / 255) * node.scale_O.astype(float))
    assert np.allclose(shown, beta, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("precision", [W1A8, W2A8])
def test_case_4_grids_without_a_zero_keep_their_codes_below_a_level(coded: MakeCoded, precision: Precision) -> None:
    graph = fold_integer(coded(precision, pinned=False, gamma=0.0, beta=2.0))
    node = graph.nodes["conv"]
    assert node.codes_OX.all()
    assert np.allclose(np.abs(node.bias_O), MAX_BIAS, rtol=1e-6)
    factor_O = multiplier(np.float32(1 / 255), node.scale_O, graph.codings["conv"].step)
    loudest = 255 * np.abs(node.codes_OX.astype(int)).sum(axis=(1, 2, 3))
    coding = graph.codings["conv"]
    shown = requantize(node.bias_O, factor_O, coding)
    assert np.array_equal(requantize(node.bias_O + loudest, factor_O, coding), shown)


def test_case_5_a_gain_too_small_for_an_int32_bias_is_dead(coded: MakeCoded) -> None:
    node = fold_integer(coded(gamma=1e-9, beta=1.0)).nodes["conv"]
    assert not node.codes_OX.any()
    assert np.allclose(node.bias_O * (np.float32(1 / 255) * node.scale_O.astype(float)), 1.0)


def test_case_5_the_last_bias_that_fits_keeps_its_channel(coded: MakeCoded) -> None:
    unit = float(coded().nodes["conv"].step_O.min()) * 1e-6 / 255
    node = fold_integer(coded(gamma=1e-6, mean=0.0, beta=0.95 * MAX_BIAS * unit)).nodes["conv"]
    assert node.codes_OX.any()
    assert (np.abs(node.bias_O.astype(np.int64)) <= MAX_BIAS).all()


def test_case_6_a_layer_without_normalisation_keeps_codes_and_bias(
    small: Architecture, make_tensors: MakeTensors
) -> None:
    graph = quantized(small, W8A8, make_tensors(small, W8A8))
    before, after = graph.nodes["classifier"], fold_integer(graph).nodes["classifier"]
    assert np.array_equal(after.codes_OX, before.codes_OX)
    assert np.array_equal(after.scale_O, before.step_O)
    unit_O = float(graph.codings["pool"].step) * after.scale_O.astype(float)
    assert np.allclose(after.bias_O * unit_O, before.after.bias_O, atol=unit_O.max())


def test_case_4_nested_codes_have_no_zero_either(make_tensors: MakeTensors) -> None:
    network, precision = cnn4(nested=True), Precision(6, 8)
    tensors = make_tensors(network, precision)
    before = quantized(network, precision, tensors).nodes["conv2"]
    node = fold_integer(quantized(network, precision, tensors)).nodes["conv2"]
    assert tensors["conv2.gamma"][1] == 0
    assert np.array_equal(node.codes_OX[1], np.sign(before.codes_OX[1]))


def test_case_7_group_norm_stays_and_leaves_codes_and_steps(make_tensors: MakeTensors) -> None:
    network = cnn4(norm=Norm.GROUP)
    tensors = make_tensors(network, W8A8)
    graph = quantized(network, W8A8, tensors)
    before, node = graph.nodes["conv2"], fold_integer(graph).nodes["conv2"]
    assert isinstance(node.norm, GroupNorm)
    assert node.norm is before.after
    assert np.array_equal(node.codes_OX, before.codes_OX)
    assert np.array_equal(node.scale_O, before.step_O)
    assert not node.bias_O.any()


def test_standardized_weights_are_exported_at_fp32_too(make_tensors: MakeTensors) -> None:
    network = cnn4(norm=Norm.GROUP)
    tensors = make_tensors(network, FP32)
    node = fold_float(latent(network, tensors)).nodes["conv2"]
    assert np.array_equal(node.weight_OX, standardized(tensors[f"conv2.{Role.WEIGHT}"]))
    assert np.array_equal(latent(network, tensors).nodes["classifier"].weight_OX, tensors["classifier.weight"])


def test_a_scale_that_leaves_float32_is_named_with_its_channel(coded: MakeCoded) -> None:
    with pytest.raises(ExportError, match="layer conv, channel 0: input step · weight scale / output step is inf"):
        fold_integer(coded(gamma=3e38, variance=0.0))


def test_a_folded_layer_computes_what_normalisation_computes(
    one_convolution: Callable[..., Architecture], make_tensors: MakeTensors
) -> None:
    """Against the unfolded formula in float64; levels may differ by one at a rounding boundary, seldom."""
    network = one_convolution(relu=False)
    tensors = make_tensors(network, W8A8)
    before = quantized(network, W8A8, tensors)
    after = fold_integer(before)
    inputs_PX = np.random.default_rng(0).integers(0, 256, (500, 18))
    expected = _unfolded(before.nodes["conv"], inputs_PX / 255) / float(before.codings["conv"].step)
    node = after.nodes["conv"]
    sums = inputs_PX @ node.codes_OX.reshape(4, -1).T.astype(int) + node.bias_O
    coding = after.codings["conv"]
    factor_O = multiplier(np.float32(1 / 255), node.scale_O, coding.step)
    levels = requantize(sums, factor_O, coding).astype(int) - 128
    assert np.abs(levels - np.clip(expected, -128, 127)).max() < 0.51
    assert (np.unique(levels).size) > 20


def _unfolded(node: Coded, inputs_PX: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm = node.after
    weight_OX = node.codes_OX.reshape(4, -1) * node.step_O[:, None].astype(float)
    deviation_O = np.sqrt(norm.variance_O.astype(float) + NORM_EPSILON)
    return norm.gamma_O * (inputs_PX @ weight_OX.T - norm.mean_O) / deviation_O + norm.beta_O
