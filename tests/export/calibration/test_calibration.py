"""Steps against the trainer's search, moments by hand and by law, the walk against the references."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edge.training.calibration import best_log_step
from export.calibration import calibrated, chosen
from export.calibration.moments import Moments, matched, measured
from export.calibration.steps import SAMPLE, best_step
from export.calibration.walk import Walk
from export.errors import ExportError
from export.reference import FloatNetwork, IntegerNetwork
from export.weights import Weights
from protocol.architecture import NORM_EPSILON, Architecture, Kind, Layer, Norm, Role, Tensors
from protocol.networks import binary18, cnn4, mobile, resnet18, vgg_small
from protocol.precision import FP32, Precision
from protocol.weights import latent_weight

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Values = npt.NDArray[Any]
W8A8 = Precision(8, 8)
SHAPE = (1, 32, 32)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_a_step_is_the_trainers(bits: int, signed: bool) -> None:
    values = np.random.default_rng(bits).normal(0, 2, 5000).astype(np.float32)
    values = values if signed else np.maximum(values, 0)
    expected = best_log_step(torch.from_numpy(values), bits, signed=signed).exp()
    assert best_step(values, bits, signed=signed) == pytest.approx(float(expected), rel=1e-5)


def test_no_other_step_tried_has_less_error() -> None:
    values = np.abs(np.random.default_rng(0).standard_t(3, 4000)).astype(np.float32)

    def error(step: float) -> float:
        return float(np.square(np.clip(np.rint(values / step), 0, 15) * step - values).mean())

    best = best_step(values, 4, signed=False)
    reach = float(values.max()) / 15
    assert error(best) <= min(error(reach * fraction) for fraction in np.linspace(0.1, 1, 50)) * 1.02
    assert best < reach


def test_a_sample_sees_every_column() -> None:
    """At even distances, with sizes that are powers of two, it would see column 0 alone, where here is little."""
    values = np.random.default_rng(0).uniform(0, 9, (SAMPLE // 16, 32, 16, 2)).astype(np.float32)
    values[:, :, 0] /= 9
    assert best_step(values, 8, signed=False) > 8 / 255


def test_zeros_alone_have_a_step() -> None:
    assert best_step(np.zeros(10, np.float32), 8, signed=False) > 0


def test_moments_by_hand() -> None:
    """Sums doubled and shifted by 1: the deviation doubles, and the mean follows both."""
    before, after = Moments(np.array([3.0]), np.array([4.0])), Moments(np.array([7.0]), np.array([16.0]))
    mean_O, variance_O = matched(np.array([2.5], np.float32), np.array([9.0], np.float32), before, after)
    assert mean_O == pytest.approx([7 - (3 - 2.5) * 2])
    assert variance_O == pytest.approx([36], rel=1e-5)


def test_what_is_normalised_keeps_mean_and_deviation() -> None:
    rng = np.random.default_rng(0)
    sums = rng.normal(1, 3, (20, 4, 5, 5))
    moved = sums * rng.uniform(0.5, 2, (4, 1, 1)) + rng.normal(0, 1, (4, 1, 1)) + rng.normal(0, 0.1, sums.shape)
    mean_O, variance_O = rng.normal(0, 1, 4).astype(np.float32), rng.uniform(1, 4, 4).astype(np.float32)

    def normalised(values: Values, mean_O: Values, variance_O: Values) -> Values:
        return (values - mean_O.reshape(-1, 1, 1)) / np.sqrt(variance_O + NORM_EPSILON).reshape(-1, 1, 1)

    expected = measured(normalised(sums, mean_O, variance_O))
    found = measured(normalised(moved, *matched(mean_O, variance_O, measured(sums), measured(moved))))
    np.testing.assert_allclose(found.mean_O, expected.mean_O, atol=1e-5)
    np.testing.assert_allclose(found.variance_O, expected.variance_O, rtol=1e-5)


def test_where_nothing_moved_nothing_changes_and_a_still_channel_stays_finite() -> None:
    mean_O, variance_O = np.array([1.5, 0.1], np.float32), np.array([2.0, 0.0], np.float32)
    same = Moments(np.array([1.0, 0.0]), np.array([3.0, 0.0]))
    found_mean_O, found_variance_O = matched(mean_O, variance_O, same, same)
    np.testing.assert_allclose(found_mean_O, mean_O)
    np.testing.assert_allclose(found_variance_O, variance_O, atol=1e-9)
    alive = Moments(np.array([1.0, 2.0]), np.array([3.0, 5.0]))
    assert np.isfinite(matched(mean_O, variance_O, same, alive)).all()


NETWORKS = [
    resnet18(width=0.0625, input_shape=SHAPE),
    resnet18(width=0.0625, stem="7x7", input_shape=SHAPE),
    resnet18(width=0.0625, input_shape=SHAPE, norm=Norm.GROUP),
    binary18(width=0.0625, input_shape=SHAPE),
    mobile(width=0.125, input_shape=SHAPE),
    vgg_small(width=0.0625, input_shape=SHAPE),
    cnn4(width=0.25, input_shape=SHAPE),
]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.spec.split(":")[0])
def test_the_walk_at_full_precision_is_the_float_reference(
    network: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    tensors = make_tensors(network, FP32)
    weights = {row.name: latent_weight(network, row, tensors) for row in network.layers if row.weight_shape}

    def normalise(layer: Layer, sums: Values) -> Values:
        gamma, beta, mean, variance = (
            tensors[f"{layer.name}.{role}"].reshape(-1, 1, 1)
            for role in (Role.GAMMA, Role.BETA, Role.MEAN, Role.VARIANCE)
        )
        return (gamma * (sums - mean) / np.sqrt(variance + NORM_EPSILON) + beta).astype(np.float32)

    def store(layer: Layer, y: Values) -> Values:
        return np.maximum(y, 0) if layer.relu else y

    found = Walk(network.at(FP32), tensors, weights, normalise, store).run(digits[0][:20])
    expected = FloatNetwork(network, tensors).logits(digits[0][:20])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.spec.split(":")[0])
def test_every_network_can_be_calibrated_and_stays_near_its_float_self(
    network: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    weights = Weights(network, (FP32,), make_tensors(network, FP32))
    tensors = calibrated(weights, W8A8, digits[0][:100])
    assert {name: values.shape for name, values in tensors.items()} == {
        spec.name: spec.shape for spec in network.tensors(W8A8)
    }
    assert all(values.dtype == np.float32 for values in tensors.values())
    expected = FloatNetwork(network, weights.tensors).logits(digits[0][100:140])
    found = IntegerNetwork(network, W8A8, tensors).logits(digits[0][100:140])
    assert np.square(found - expected).mean() < 0.01 * expected.var()


def test_calibrating_is_repeatable_and_leaves_the_weights_alone(
    small: Architecture, make_tensors: MakeTensors, digits: Digits
) -> None:
    weights = Weights(small, (FP32,), make_tensors(small, FP32))
    before = {name: values.tobytes() for name, values in weights.tensors.items()}
    first, second = (calibrated(weights, Precision(2, 4), digits[0][:60]) for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert {name: values.tobytes() for name, values in weights.tensors.items()} == before
    assert first["layer1.0.conv1.weight"].tobytes() == before["layer1.0.conv1.weight"]


def test_moments_matter_at_few_bits(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    """The quantized network as it would be without them is several times as far from the float one."""
    weights = Weights(small, (FP32,), make_tensors(small, FP32))
    tensors = calibrated(weights, Precision(2, 8), digits[0][:100])
    lent = {n: weights.tensors[n] if n.endswith((".mean", ".variance")) else v for n, v in tensors.items()}
    expected = FloatNetwork(small, weights.tensors).logits(digits[0][100:160])
    errors = [
        np.square(IntegerNetwork(small, Precision(2, 8), each).logits(digits[0][100:160]) - expected).mean()
        for each in (tensors, lent)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_full_precision_needs_no_calibration(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    weights = Weights(small, (FP32,), make_tensors(small, FP32))
    assert calibrated(weights, FP32, digits[0][:2]).keys() == weights.tensors.keys()


def test_a_network_whose_zeros_are_learned_is_named(make_tensors: MakeTensors, digits: Digits) -> None:
    network = binary18(width=0.0625, input_shape=SHAPE)
    row = next(row for row in network.layers if row.kind is Kind.RECODE and row.signed)
    weights = Weights(network, (FP32,), make_tensors(network, FP32))
    with pytest.raises(ExportError, match=f"layer {row.name} narrows signed activations at W1A1, around a zero"):
        calibrated(weights, Precision(1, 1), digits[0][:2])


def test_pictures_are_taken_from_everywhere_and_not_more_than_fit() -> None:
    small, large = resnet18(input_shape=SHAPE), resnet18(stem="7x7", input_shape=(3, 224, 224))
    numbered = np.arange(1000, dtype=np.uint8).reshape(-1, 1, 1, 1)
    taken = chosen(numbered, small)
    assert (len(taken), taken[0, 0, 0, 0], taken[-1, 0, 0, 0]) == (256, 0, 999 % 256)
    assert len(chosen(numbered, large)) == 83
    assert len(chosen(numbered[:3], small)) == 3
