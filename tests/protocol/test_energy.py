import pytest

from protocol.architecture import resnet18
from protocol.energy import (
    DRAM_WORD_PJ,
    FP32_MULTIPLY_ADD_PJ,
    inference_energy,
    model_bytes,
    training_energy_mj,
)
from protocol.precision import FP32, Precision

NETWORK = resnet18()


def energy_mj(name: str) -> float:
    return inference_energy(NETWORK, Precision.parse(name)).total_mj


def test_fp32_arithmetic_is_multiply_adds_times_their_price() -> None:
    assert inference_energy(NETWORK, FP32).arithmetic_mj == pytest.approx(555_422_720 * FP32_MULTIPLY_ADD_PJ * 1e-9)


def test_every_bit_less_costs_less() -> None:
    names = ["fp32", "W8A8", "W6A8", "W4A8", "W3A8", "W2A8", "W1A8", "W1A1"]
    energies = [energy_mj(name) for name in names]
    assert energies == sorted(energies, reverse=True)
    assert len(set(energies)) == len(energies)


def test_memory_counts_weights_once_and_activations_twice() -> None:
    small = resnet18(width=0.0625, input_shape=(1, 8, 8), classes=3)
    bits = sum(32 * (layer.weight_shape is not None) * _size(layer.weight_shape) for layer in small.layers)
    bits += sum(64 * _size(layer.out_shape) for layer in small.layers)
    expected = bits / 32 * DRAM_WORD_PJ * 1e-9
    assert inference_energy(small, FP32).memory_mj == pytest.approx(expected)


def _size(shape: tuple[int, ...] | None) -> int:
    size = 1
    for edge in shape or ():
        size *= edge
    return size


def test_model_bytes_follow_the_width() -> None:
    fp32, w4, w1 = (model_bytes(NETWORK, Precision.parse(name)) for name in ("fp32", "W4A8", "W1A8"))
    assert fp32 == pytest.approx(44.7e6, rel=0.01)
    assert fp32 / w4 == pytest.approx(8, rel=0.01)
    assert fp32 / w1 == pytest.approx(32, rel=0.02)


def test_training_costs_three_inferences_in_fp32_arithmetic() -> None:
    assert training_energy_mj(NETWORK, 10) == pytest.approx(30 * inference_energy(NETWORK, FP32).arithmetic_mj)
