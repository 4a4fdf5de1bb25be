"""Codes equal the shared definition bit for bit; gradients equal the formulas in the module's docstring."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.training.quantizers import BINARY_CLIP, quantize_activation, quantize_weight, step_of
from protocol import precision

STEPPED = (2, 3, 4, 5, 6, 7, 8)


def weights(seed: int, spread: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(6, 5, 3, 3)) * spread
    return torch.from_numpy(values.astype(np.float32)).requires_grad_()


def initial_log_step(weight: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.from_numpy(np.log(precision.initial_step(weight.detach().numpy(), bits))).requires_grad_()


@given(st.integers(0, 2**32 - 1), st.sampled_from(STEPPED), st.floats(1e-4, 1e3))
def test_stepped_weights_are_the_codes_of_the_shared_definition(seed: int, bits: int, spread: float) -> None:
    weight = weights(seed, spread)
    log_step = initial_log_step(weight, bits)
    step = step_of(log_step).detach()
    codes = precision.quantize_weight(weight.detach().numpy(), step.numpy(), bits)
    expected = torch.from_numpy(codes.astype(np.float32)) * step.view(-1, 1, 1, 1)
    assert torch.equal(quantize_weight(weight, log_step, bits), expected)


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1e3))
def test_binary_weights_are_the_signs_and_the_mean_magnitude(seed: int, spread: float) -> None:
    weight = weights(seed, spread)
    values = weight.detach().numpy()
    step = precision.binary_step(values)
    expected = precision.quantize_weight(values, step, 1) * step.reshape(-1, 1, 1, 1)
    assert np.array_equal(quantize_weight(weight, None, 1).detach().numpy(), expected)


@pytest.mark.parametrize("bits", [1, *STEPPED])
def test_values_on_and_beside_a_decision_boundary_get_the_shared_code(bits: int) -> None:
    step = np.float32(0.37)
    edges = np.arange(-80, 81, dtype=np.float32) * step / 2
    nearby = np.concatenate([edges, np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(-9))])[None]
    if bits == 1:
        step = precision.binary_step(nearby)[0]
    codes = precision.quantize_weight(nearby, np.array([step]), bits)
    log_step = torch.tensor([float(step)], dtype=torch.float64).log()  # float64, so that the step comes back exactly
    result = quantize_weight(torch.from_numpy(nearby), log_step, bits).numpy()
    assert np.array_equal(result, codes * step)


def test_a_channel_of_zeros_stays_finite() -> None:
    dead = torch.zeros(2, 3, requires_grad=True)
    quantize_weight(dead, None, 1).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(quantize_weight(dead, None, 1)).all()
    assert torch.isfinite(dead.grad).all()  # type: ignore[arg-type]


def test_more_than_eight_bits_leave_weights_alone() -> None:
    weight = weights(0)
    assert quantize_weight(weight, None, 16) is weight


def plain_gradients(
    values: np.ndarray, step: float, quantized: np.ndarray, bounds: tuple[float, float], upstream: np.ndarray
) -> tuple[np.ndarray, float]:
    """The docstring's formulas, one value at a time."""
    along_values, along_step = np.zeros_like(values), 0.0
    for place, value in np.ndenumerate(values):
        inside = bounds[0] <= value / np.float32(step) <= bounds[1]
        along_values[place] = upstream[place] if inside else 0.0
        along_step += float(upstream[place]) * float(quantized[place] - value if inside else quantized[place])
    return along_values, along_step


@pytest.mark.parametrize("bits", STEPPED)
def test_gradients_of_weights_are_the_written_formulas(bits: int) -> None:
    weight, upstream = weights(bits), weights(100 + bits).detach()
    log_step = (initial_log_step(weight, bits).detach() - 0.4).requires_grad_()  # small enough to clip some
    quantized = quantize_weight(weight, log_step, bits)
    quantized.backward(upstream)  # type: ignore[no-untyped-call]
    limit, count = precision.max_code(bits), weight[0].numel()
    assert weight.grad is not None
    assert log_step.grad is not None
    for channel, step in enumerate(step_of(log_step).tolist()):
        along_values, along_step = plain_gradients(
            weight[channel].detach().numpy(),
            step,
            quantized[channel].detach().numpy(),
            (-limit, limit),
            upstream[channel].numpy(),
        )
        assert np.array_equal(weight.grad[channel].numpy(), along_values)
        assert float(log_step.grad[channel]) == pytest.approx(along_step / sqrt(count * limit), rel=1e-4, abs=1e-6)


def test_the_gradient_passes_a_binary_weight_up_to_the_clip() -> None:
    weight, upstream = weights(1), weights(2).detach()
    quantize_weight(weight, None, 1).backward(upstream)  # type: ignore[no-untyped-call]
    mean = weight.detach().abs().mean((1, 2, 3), keepdim=True)
    passes = weight.detach().abs() <= BINARY_CLIP * mean
    assert 0 < int((~passes).sum()) < weight.numel() / 10
    assert torch.equal(weight.grad, upstream * passes)  # type: ignore[arg-type]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", precision.ACTIVATION_BITS[:-1])
def test_gradients_of_activations_are_the_written_formulas(bits: int, signed: bool) -> None:
    values, upstream = weights(bits), weights(7).detach()
    low, high = precision.activation_range(bits, signed=signed)
    log_step = torch.tensor([np.log(1.5 / max(high, 1))], dtype=torch.float32, requires_grad=True)
    quantized = quantize_activation(values, log_step, bits, signed=signed)
    quantized.backward(upstream)  # type: ignore[no-untyped-call]
    along_values, along_step = plain_gradients(
        values.detach().numpy(),
        float(step_of(log_step.detach())),
        quantized.detach().numpy(),
        (low, high),
        upstream.numpy(),
    )
    assert np.array_equal(values.grad, along_values)  # type: ignore[arg-type]
    scaled = along_step / sqrt(values[0].numel() * max(high, 1))
    assert float(log_step.grad) == pytest.approx(scaled, rel=1e-4, abs=1e-6)  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_activations_are_whole_multiples_of_the_step_within_range(seed: int, bits: int, signed: bool) -> None:
    values = weights(seed).detach()
    log_step = torch.tensor([-3.0])
    step = step_of(log_step)
    low, high = precision.activation_range(bits, signed=signed)
    expected = np.clip(np.rint(values.numpy() / step.numpy()), low, high) * step.numpy()
    assert np.array_equal(quantize_activation(values, log_step, bits, signed=signed).numpy(), expected)


def test_a_quantizer_saves_its_input_and_nothing_of_its_size_besides() -> None:
    saved: list[int] = []
    values, log_step = weights(0), torch.tensor([-3.0], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):  # type: ignore[func-returns-value]
        quantize_activation(values, log_step, 8, signed=False)
        quantize_weight(values, initial_log_step(values, 4), 4)
        quantize_weight(values, None, 1)
    assert sorted(saved) == [1, 6, values.numel(), values.numel(), values.numel()]
