"""Activations: levels as the integer network stores them, gradients those of plain versions in three lines."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.training.quantizers import blocks, quantize_activation, quantize_sign, quantize_with_offset, step_of
from edge.training.quantizers.twin import KEPT
from protocol.precision import ACTIVATION_BITS, activation_range

pytestmark = pytest.mark.usefixtures("each_kernel")

QUANTIZED = ACTIVATION_BITS[:-1]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def values(seed: int, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    x = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=layout).requires_grad_()


def direction(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(99))


def plain(x: torch.Tensor, log_step: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """LSQ as its paper's pseudo-code has it: clip, round straight through, multiply."""
    step = log_step.exp()
    position = (x / step).clamp(low, high)
    return (position + (position.round() - position).detach()) * step


def plain_with_offset(x: torch.Tensor, log_step: torch.Tensor, offset: torch.Tensor, bits: int) -> torch.Tensor:
    """LSQ+, the offset rounded straight through to a multiple of the step."""
    step, top = log_step.exp(), (1 << bits) - 1
    whole = -(-offset / step).round().clamp(0, top) * step
    lowest = offset + (whole - offset).detach()
    position = ((x - lowest) / step).clamp(0, top)
    return (position + (position.round() - position).detach()) * step + lowest


def assert_close_gradients(
    fused: torch.Tensor, expected: torch.Tensor, x: torch.Tensor, others: tuple[torch.Tensor, ...], scale: float
) -> None:
    """Those of values are equal; those of steps as close as a rounding error kept in one byte allows."""
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=1e-6)
    upstream = direction(x)
    ours = torch.autograd.grad(fused, (x, *others), upstream)
    theirs = torch.autograd.grad(expected, (x, *others), upstream)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    step = step_of(others[0].detach())
    worst = float(upstream.abs().sum() * step) / KEPT * scale
    usual = 4 * float(upstream.norm() * step) / KEPT * scale  # errors of either sign, so that they grow as the root
    assert usual < worst / 2
    for mine, his in zip(ours[1:], theirs[1:], strict=True):
        assert float((mine - his * scale).abs()) <= usual


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", QUANTIZED)
def test_gradients_are_those_of_the_plain_version(bits: int, signed: bool, layout: torch.memory_format) -> None:
    x = values(bits, layout)
    low, high = activation_range(bits, signed=signed)
    log_step = torch.tensor([np.log(1.5 / max(high, 1))], dtype=torch.float32, requires_grad=True)
    scale = 1 / sqrt(x[0].numel() * max(high, 1))
    fused = quantize_activation(x, log_step, bits, signed=signed)
    assert_close_gradients(fused, plain(x, log_step, low, high), x, (log_step,), scale)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offset", [0.3, 0.0, -0.5, -1.4, -9.0])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gradients_with_an_offset_are_those_of_the_plain_version(
    bits: int, offset: float, layout: torch.memory_format
) -> None:
    x, lowest = values(bits, layout), torch.tensor([offset], requires_grad=True)
    log_step = torch.tensor([np.log(2.5 / ((1 << bits) - 1))], dtype=torch.float32, requires_grad=True)
    scale = 1 / sqrt(x[0].numel() * ((1 << bits) - 1))
    fused, expected = quantize_with_offset(x, log_step, lowest, bits), plain_with_offset(x, log_step, lowest, bits)
    assert_close_gradients(fused, expected, x, (log_step, lowest), scale)


@given(st.integers(0, 2**32 - 1), st.sampled_from(QUANTIZED), st.booleans(), st.booleans())
def test_levels_are_whole_multiples_of_the_step_within_range(
    seed: int, bits: int, signed: bool, training: bool
) -> None:
    x, log_step = values(seed), torch.tensor([-3.0], requires_grad=True)
    step = step_of(log_step.detach()).numpy()
    low, high = activation_range(bits, signed=signed)
    expected = np.clip(np.rint(x.detach().numpy() / step), low, high) * step
    with torch.set_grad_enabled(training):
        assert np.array_equal(quantize_activation(x, log_step, bits, signed=signed).detach().numpy(), expected)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(-3, 1, width=32), st.booleans())
def test_levels_with_an_offset_are_what_the_integer_network_stores(
    seed: int, bits: int, offset: float, training: bool
) -> None:
    x, log_step, top = values(seed), torch.tensor([-0.7]), (1 << bits) - 1
    step = step_of(log_step).numpy()
    zero = np.clip(np.rint(-np.float32(offset) / step), 0, top)
    stored = np.clip(np.rint(x.detach().numpy() / step) + zero, 0, top)
    with torch.set_grad_enabled(training):
        quantized = quantize_with_offset(x, log_step, torch.tensor([offset]), bits).detach().numpy()
    assert np.array_equal(quantized, step * (stored - zero))


def plain_sign(x: torch.Tensor, log_step: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Bi-Real Net's piecewise polynomial behind the sign, in units of the step."""
    position = ((x - threshold.view(-1, 1, 1)) / log_step.detach().exp()).clamp(-1, 1)
    smooth = 2 * position - position * position.abs()
    signs = torch.where(x >= threshold.view(-1, 1, 1), 1.0, -1.0)
    return log_step.exp() * signs + log_step.detach().exp() * (smooth - smooth.detach())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_signs_are_those_of_the_plain_version(layout: torch.memory_format) -> None:
    x, log_step = values(4, layout), torch.tensor([-0.3], requires_grad=True)
    threshold = torch.linspace(-0.5, 0.5, 5).requires_grad_()
    fused, expected = quantize_sign(x, log_step, threshold), plain_sign(x, log_step, threshold)
    torch.testing.assert_close(fused, expected)
    inputs, upstream = (x, log_step, threshold), direction(x)
    ours, theirs = (torch.autograd.grad(y, inputs, upstream) for y in (fused, expected))
    for mine, his, scale in zip(ours, theirs, (1, 1 / sqrt(60), 1 / sqrt(12)), strict=True):
        torch.testing.assert_close(mine, his * scale, rtol=1e-4, atol=1e-5)


def test_a_value_on_its_threshold_counts_as_above() -> None:
    x = torch.tensor([-0.5, 0.25, 0.0, -0.0]).view(1, 2, 1, 2)
    quantized = quantize_sign(x, torch.zeros(1), torch.tensor([0.25, 0.0]))
    assert quantized.flatten().tolist() == [-1.0, 1.0, 1.0, 1.0]


def test_a_tensor_of_many_blocks_gets_what_it_would_get_at_once() -> None:
    x, log_step = values(1, torch.channels_last), torch.tensor([-2.0], requires_grad=True)
    gradients = []
    for size in (7, 64, x.numel()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "BLOCK", size)
            quantized = quantize_activation(x, log_step, 4, signed=True)
            gradients.append((quantized, *torch.autograd.grad(quantized, (x, log_step), direction(x))))
    for other in gradients[1:]:
        for some, all_ in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(some, all_, rtol=1e-5, atol=1e-6)


def test_a_gradient_in_another_layout_is_understood() -> None:
    x, log_step = values(2, torch.channels_last), torch.tensor([-2.0], requires_grad=True)
    results = []
    for upstream in (direction(x).contiguous(), direction(x).contiguous(memory_format=torch.channels_last)):
        results.append(torch.autograd.grad(quantize_activation(x, log_step, 8, signed=False), (x, log_step), upstream))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_one_byte_a_value_is_kept() -> None:
    saved: list[int] = []
    x, log_step = values(0), torch.tensor([-3.0], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda y: saved.append(y.nbytes) or y, lambda y: y):  # type: ignore[func-returns-value]
        quantize_activation(x, log_step, 8, signed=False)
        quantize_with_offset(x, log_step, torch.tensor([-0.5]), 4)
    assert sorted(saved) == [4, 4, x.numel(), x.numel()]
