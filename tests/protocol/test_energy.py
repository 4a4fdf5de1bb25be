import pytest

from protocol.architecture import Kind
from protocol.energy import (
    DRAM_WORD_PJ,
    FP32_MULTIPLY_ADD_PJ,
    bops,
    inference_energy,
    model_bytes,
    training_energy_mj,
)
from protocol.networks import cnn4, fedzip_cnn, mobile, resnet18, vgg_small
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
    bits += sum(64 * _size(layer.out_shape) for layer in small.at(FP32).layers)
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


def test_bops_multiply_the_widths_that_meet() -> None:
    network = cnn4()
    first, *middle, last = (layer.multiply_adds for layer in network.layers if layer.weight_shape)
    assert bops(network, FP32) == network.multiply_adds * 32 * 32
    assert bops(network, Precision(8, 8)) == network.multiply_adds * 64
    assert bops(network, Precision(4, 3)) == (first + last) * 64 + sum(middle) * 12
    assert bops(network, Precision(1, 1)) == (first + last) * 64 + sum(middle)


def test_w4a4_takes_a_thirtieth_of_the_bops() -> None:
    """ALGORITHMS section 5, `oqfl`, on its three kinds of network; the residual one narrows what its streams hold."""
    for network in (vgg_small(), resnet18(), mobile()):
        assert bops(network, FP32) / bops(network, Precision(4, 4)) >= 30


def test_weights_alone_at_a_width_leave_the_arithmetic_float() -> None:
    float_mj, w4_mj = (inference_energy(NETWORK, Precision(bits, 32)) for bits in (32, 4))
    assert w4_mj.arithmetic_mj == float_mj.arithmetic_mj
    assert w4_mj.memory_mj < float_mj.memory_mj


def test_rows_that_do_nothing_cost_nothing() -> None:
    wide, narrow = (inference_energy(NETWORK, Precision(8, bits)) for bits in (8, 4))
    recoded = sum(_size(layer.out_shape) for layer in NETWORK.layers if layer.kind is Kind.RECODE)
    middle = sum(_size(layer.out_shape) for layer in NETWORK.layers if layer.scale.endswith(".mid"))
    saved_bits = 2 * (4 * middle - 4 * recoded)  # narrower between the convolutions, but one more row per block
    assert wide.memory_mj - narrow.memory_mj == pytest.approx(saved_bits / 32 * DRAM_WORD_PJ * 1e-9)


def test_a_hidden_linear_layer_stores_activations_and_the_classifier_floats() -> None:
    network = fedzip_cnn()
    sizes = {layer.name: _size(layer.out_shape) for layer in network.layers}
    bits = 8 * model_bytes(network, Precision(8, 8))
    bits += sum(2 * 8 * size for name, size in sizes.items() if name != "classifier") + 2 * 32 * sizes["classifier"]
    expected = bits / 32 * DRAM_WORD_PJ * 1e-9
    assert inference_energy(network, Precision(8, 8)).memory_mj == pytest.approx(expected)
