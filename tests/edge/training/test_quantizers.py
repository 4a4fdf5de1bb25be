"""Weights: codes equal the shared definition bit for bit, gradients those of plain versions in three lines."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import protocol.weights
from edge.training.quantizers import (
    BINARY_CLIP,
    affine_weight,
    blocks,
    nested_weight,
    noisy_weight,
    quantize_weight,
    standardized,
    step_of,
)
from protocol import precision
from protocol.errors import Unsupported
from protocol.weights import NESTED_BITS, leading_bits

pytestmark = pytest.mark.usefixtures("each_kernel")

STEPPED = (2, 3, 4, 5, 6, 7, 8)


def weights(seed: int, spread: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).normal(size=(6, 5, 3, 3)) * spread
    return torch.from_numpy(values.astype(np.float32)).requires_grad_()


def initial_log_step(weight: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.from_numpy(np.log(precision.fitted_step(weight.detach().numpy(), bits))).requires_grad_()


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


def test_full_width_leaves_weights_alone() -> None:
    weight = weights(0)
    assert quantize_weight(weight, None, 32) is weight


def plain_weight(weight: torch.Tensor, log_step: torch.Tensor, bits: int) -> torch.Tensor:
    """LSQ as its paper's pseudo-code has it: clip, round straight through, multiply."""
    step, limit = log_step.exp().view(-1, 1, 1, 1), precision.max_code(bits)
    position = (weight / step).clamp(-limit, limit)
    codes = 2 * torch.floor(position / 2) + 1 if bits == 2 else position.round()
    return (position + (codes.clamp(-limit, limit) - position).detach()) * step


def plain_nested(
    weight: torch.Tensor, log_step: torch.Tensor, log_scale: torch.Tensor | None, bits: int
) -> torch.Tensor:
    step = log_step.exp().view(-1, 1, 1, 1)
    worth = step if log_scale is None else step * log_scale.exp().view(-1, 1, 1, 1)
    position = (weight / step).clamp(-64, 64)
    codes = leading_bits(position.detach().round().numpy().astype(np.int8), bits)
    value = torch.from_numpy(codes.astype(np.float32)) * (2.0 ** (6 - bits) if bits < 8 else 1.0)
    return (position + (value - position).detach()) * worth


def assert_equal_gradients(
    fused: torch.Tensor, plain: torch.Tensor, inputs: tuple[torch.Tensor, ...], scales: tuple[float, ...]
) -> None:
    """Values agree, and gradients of a random direction once `scales` are applied to the plain ones."""
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-7)
    upstream = torch.randn(fused.shape, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad(fused, inputs, upstream)
    for mine, theirs, scale in zip(ours, torch.autograd.grad(plain, inputs, upstream), scales, strict=True):
        torch.testing.assert_close(mine, theirs * scale, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bits", [*STEPPED, 16])
def test_gradients_of_weights_are_those_of_the_plain_version(bits: int, layout: torch.memory_format) -> None:
    weight = weights(bits).detach().contiguous(memory_format=layout).requires_grad_()
    log_step = (initial_log_step(weight, bits).detach() - 0.4).requires_grad_()  # small enough to clip some
    limit, count = precision.max_code(bits), weight[0].numel()
    fused, plain = quantize_weight(weight, log_step, bits), plain_weight(weight, log_step, bits)
    assert bits == 16 or 0 < int((fused.abs() >= limit * step_of(log_step).view(-1, 1, 1, 1)).sum()) < weight.numel()
    assert_equal_gradients(fused, plain, (weight, log_step), (1.0, 1 / sqrt(count * limit)))


@pytest.mark.parametrize("bits", NESTED_BITS)
def test_gradients_of_nested_weights_are_those_of_the_plain_version(bits: int) -> None:
    weight = weights(bits)
    log_step = torch.full((6,), -3.5, requires_grad=True)  # 64 steps reach 1.9 deviations
    log_scale = torch.linspace(-0.2, 0.3, 6).requires_grad_() if bits < 8 else None
    inputs = (weight, log_step) if log_scale is None else (weight, log_step, log_scale)
    damping = 1 / sqrt(weight[0].numel() * precision.max_code(bits))
    fused, plain = nested_weight(weight, log_step, log_scale, bits), plain_nested(weight, log_step, log_scale, bits)
    assert_equal_gradients(fused, plain, inputs, (1.0, damping, damping)[: len(inputs)])


@pytest.mark.parametrize("bits", [7, 9, 16, 32])
def test_a_width_that_nested_codes_lack_is_refused(bits: int) -> None:
    with pytest.raises(Unsupported, match=f"nested codes of {bits} bits: expected one of"):
        nested_weight(weights(0), torch.zeros(6), None, bits)


def test_weights_of_many_blocks_get_what_each_channel_alone_would() -> None:
    weight = torch.randn(40, 64, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert weight.numel() > blocks.BLOCK / 4
    log_step = initial_log_step(weight, 4)
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 2000)  # three channels and a bit
        in_blocks = torch.autograd.grad(quantize_weight(weight, log_step, 4), (weight, log_step), upstream)
    at_once = torch.autograd.grad(quantize_weight(weight, log_step, 4), (weight, log_step), upstream)
    for some, all_ in zip(in_blocks, at_once, strict=True):
        torch.testing.assert_close(some, all_)


def test_the_gradient_passes_a_binary_weight_up_to_the_clip() -> None:
    weight, upstream = weights(1), weights(2).detach()
    quantize_weight(weight, None, 1).backward(upstream)  # type: ignore[no-untyped-call]
    mean = weight.detach().abs().mean((1, 2, 3), keepdim=True)
    passes = weight.detach().abs() <= BINARY_CLIP * mean
    assert 0 < int((~passes).sum()) < weight.numel() / 10
    assert torch.equal(weight.grad, upstream * passes)  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.floats(1e-4, 1e3))
def test_standardized_weights_are_those_of_the_shared_definition(seed: int, spread: float) -> None:
    weight = weights(seed, spread)
    assert np.array_equal(standardized(weight).detach().numpy(), protocol.weights.standardized(weight.detach().numpy()))


def test_gradients_of_standardized_weights_are_those_of_the_plain_version() -> None:
    weight = weights(3)
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    plain = centred / centred.square().sum((1, 2, 3), keepdim=True).add(protocol.weights.STANDARD_EPSILON).sqrt()
    assert_equal_gradients(standardized(weight), plain, (weight,), (1.0,))


def test_a_filter_of_zeros_is_standardized_to_zeros() -> None:
    dead = torch.zeros(2, 3, requires_grad=True)
    standard = standardized(dead)
    standard.sum().backward()  # type: ignore[no-untyped-call]
    assert not standard.any()
    assert torch.isfinite(dead.grad).all()  # type: ignore[arg-type]


def test_the_affine_grid_of_a_tensor_by_hand() -> None:
    """Minima 0 and −1, maxima 3 and 2: from −0.5 to 2.5 in three steps of 1; ties go to even codes."""
    weight = torch.tensor([[0.0, 1.1, 2.0, 3.0], [-1.0, 0.3, 1.0, 2.0]], requires_grad=True)
    quantized = affine_weight(weight, 2)
    assert quantized.tolist() == [[-0.5, 1.5, 1.5, 2.5], [-0.5, 0.5, 1.5, 1.5]]
    quantized.backward(torch.arange(8.0).view(2, 4))  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == list(range(8))


def test_the_affine_grid_of_one_bit_is_the_sign_times_the_tensor_s_mean() -> None:
    weight = torch.tensor([[0.5, -1.0], [0.0, 2.5]])
    assert affine_weight(weight, 1).tolist() == [[1.0, -1.0], [1.0, 1.0]]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_affine_grid_has_at_most_its_levels(bits: int) -> None:
    levels = affine_weight(weights(bits), bits).detach().unique()
    assert 2 < len(levels) <= 1 << bits


@pytest.mark.parametrize("bits", [1, 4])
def test_noise_is_uniform_over_the_width_s_step(bits: int) -> None:
    weight = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(0), requires_grad=True)
    noisy = noisy_weight(weight, bits, torch.Generator().manual_seed(7))
    half_step = weight.detach().abs().amax(1, keepdim=True) / ((1 << bits) - 1)
    uniform = ((noisy - weight) / half_step).detach()
    assert float(uniform.abs().max()) <= 1 + 1e-4
    assert abs(float(uniform.mean())) < 0.01  # deviation of the mean 0.0024
    assert float(uniform.var()) == pytest.approx(1 / 3, rel=0.02)
    assert torch.equal(noisy, noisy_weight(weight, bits, torch.Generator().manual_seed(7)))
    noisy.sum().backward()  # type: ignore[no-untyped-call]
    assert bool((weight.grad == 1).all())  # type: ignore[union-attr]


def test_noise_of_full_width_is_none() -> None:
    weight = weights(0)
    assert noisy_weight(weight, 32, torch.Generator()) is weight


def test_a_quantizer_keeps_the_latent_and_nothing_of_its_size_besides() -> None:
    saved: list[int] = []
    values = weights(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.data_ptr()) or x, lambda x: x):  # type: ignore[func-returns-value]
        quantize_weight(values, initial_log_step(values, 4), 4)
        quantize_weight(values, None, 1)
    assert saved.count(values.data_ptr()) == 2
    assert len(saved) == 4  # and the steps
