"""First steps: no other step nearby errs less."""

import numpy as np
import pytest
import torch

from edge.data import Dataset
from edge.training.calibration import StepSearch, best_log_step, best_log_step_and_offset
from edge.training.network import Network
from edge.training.quantizers import step_of
from protocol.architecture import Role
from protocol.initial import initial_tensors
from protocol.networks import binary18, resnet18
from protocol.precision import MIN_STEP, Precision, activation_range


def normal(mean: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(mean, size=(4, 5000)).astype(np.float32))


def error(x: torch.Tensor, step: float, low: int, high: int) -> float:
    return float(((x / step).round().clamp(low, high) * step - x).square().mean())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_the_searched_step_errs_less_than_its_neighbours(bits: int, signed: bool) -> None:
    x = normal()
    target, bounds = x if signed else x.relu(), activation_range(bits, signed=signed)
    best = float(best_log_step(x, bits, signed=signed).exp())
    assert error(target, best, *bounds) <= min(error(target, best * factor, *bounds) for factor in (0.5, 0.8, 1.25, 2))


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_searched_zero_point_errs_less_than_any_other(bits: int, mean: float) -> None:
    x, top = normal(mean), (1 << bits) - 1
    log_step, lowest = best_log_step_and_offset(x, bits)
    step = float(log_step.exp())
    zero = round(-float(lowest) / step)
    best = error(x, step, -zero, top - zero)
    assert best <= min(error(x, step, -other, top - other) for other in range(top + 1)) + 1e-6
    assert best < 0.2 * float(x.square().mean())
    assert (zero <= 1) if mean == 3 else (zero >= top - 1) if mean == -3 else True


def test_steps_of_values_that_are_all_zero_stay_positive() -> None:
    assert float(best_log_step(torch.zeros(2, 3), 8, signed=False).exp()) >= MIN_STEP / 2
    assert float(best_log_step_and_offset(torch.zeros(2, 3), 2)[0].exp()) >= MIN_STEP / 2


def test_a_group_takes_the_largest_step_of_its_members(digits: Dataset) -> None:
    architecture, precision = resnet18(width=0.0625, input_shape=(1, 16, 16)), Precision.parse("W8A8")
    network = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    search, layers = StepSearch(network), architecture.by_name
    x = torch.rand(2, 4, 16, 16)
    for factor in (1.0, 8.0, 2.0):
        search(layers["layer1.0.add"], x * factor)
    alone = best_log_step(x * 8.0, 8, signed=False)
    assert torch.equal(network.value("stream1", Role.ACTIVATION_LOG_STEP), alone)


def test_the_step_of_signs_is_the_mean_distance_from_the_threshold() -> None:
    architecture, precision = binary18(width=0.0625, input_shape=(1, 16, 16)), Precision.parse("W1A1")
    tensors = initial_tensors(architecture, precision, seed=1)
    tensors["layer1.0.in.activation_offset"][:] = 0.5
    network, x = Network(architecture, precision, tensors), normal()[:, :1024].reshape(4, 4, 16, 16)
    StepSearch(network)(architecture.by_name["layer1.0.in"], x)
    step = step_of(network.value("layer1.0.in", Role.ACTIVATION_LOG_STEP).detach())
    assert float(step) == pytest.approx(float((x - 0.5).abs().mean()), rel=1e-5)


def test_a_signed_narrow_group_gets_levels_on_both_sides_of_zero() -> None:
    architecture, precision = binary18(width=0.0625, input_shape=(1, 16, 16)), Precision.parse("W2A2")
    network = Network(architecture, precision, initial_tensors(architecture, precision, seed=1))
    layer, x = architecture.by_name["layer1.0.in"], normal()[:, :1024].reshape(4, 4, 16, 16)
    with torch.no_grad():
        levels = StepSearch(network)(layer, x).unique()
    assert len(levels) == 4
    assert 1 <= int((levels < 0).sum()) <= 2
    assert bool((levels == 0).any())
