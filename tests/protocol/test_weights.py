"""From trained tensors to weight integers, by hand and by law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.architecture import Norm, Role
from protocol.errors import Unsupported
from protocol.initial import initial_tensors
from protocol.networks import cnn4
from protocol.precision import Precision, quantize_weight, step_of
from protocol.weights import NESTED_BITS, coded_weight, leading_bits, standardized

CODES = np.arange(-64, 65, dtype=np.int8)


def test_leading_bits_by_hand() -> None:
    """BF-066."""
    codes = np.array([-64, -33, -32, -1, 0, 31, 32, 63, 64], dtype=np.int8)
    assert leading_bits(codes, 1).tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert leading_bits(codes, 2).tolist() == [-3, -3, -1, -1, 1, 1, 3, 3, 3]
    assert leading_bits(codes, 6).tolist() == [-63, -33, -31, -1, 1, 31, 33, 63, 63]
    assert leading_bits(codes, 8).tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [bits for bits in NESTED_BITS if bits < 8])
def test_narrow_codes_have_every_level_of_their_width_and_keep_order(bits: int) -> None:
    narrow = leading_bits(CODES, bits)
    assert np.unique(narrow).tolist() == list(range(1 - (1 << bits), 1 << bits, 2))
    assert (np.diff(narrow.astype(int)) >= 0).all()


@given(st.integers(1, 6), st.integers(1, 6))
def test_narrowing_twice_is_narrowing_once(first: int, second: int) -> None:
    """What makes one file serve every width: the leading bits of leading bits are leading bits."""
    wide, narrow = max(first, second), min(first, second)
    index = (leading_bits(CODES, wide).astype(int) + (1 << wide) - 1) // 2
    assert ((2 * (index >> (wide - narrow)) + 1 - (1 << narrow)) == leading_bits(CODES, narrow)).all()


@pytest.mark.parametrize("bits", [b for b in NESTED_BITS if b < 8])
def test_a_narrow_code_stands_for_the_middle_of_its_cell(bits: int) -> None:
    """Half a step of the 8-bit code aside, since that code has a zero and the narrow one none."""
    unit = 2.0 ** (6 - bits)
    error = CODES[:-1] - unit * leading_bits(CODES[:-1], bits)
    assert np.abs(error).max() <= unit
    assert error.mean() == pytest.approx(-0.5)


@pytest.mark.parametrize("bits", [7, 5, 0])
def test_a_width_without_nested_codes_is_named(bits: int) -> None:
    if bits in NESTED_BITS:
        assert leading_bits(CODES, bits).size == CODES.size
    else:
        with pytest.raises(Unsupported, match=f"{bits} bits"):
            leading_bits(CODES, bits)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_a_nested_weight_is_its_codes_times_what_one_is_worth(bits: int, norm: Norm) -> None:
    network, precision = cnn4(width=0.25, norm=norm, nested=True), Precision(bits, 8)
    tensors = initial_tensors(network, precision, seed=1)
    layer = network.by_name["conv3"]
    coded = coded_weight(network, layer, precision, tensors)
    latent = tensors["conv3.weight"] if norm is Norm.BATCH else standardized(tensors["conv3.weight"])
    step_O = step_of(tensors["conv3.code_log_step"])
    assert (coded.codes_OX == leading_bits(quantize_weight(latent, step_O, 8), bits)).all()
    np.testing.assert_allclose(coded.step_O, step_O * (1 if bits == 8 else 2.0 ** (6 - bits)), rtol=1e-6)
    scaled = tensors | {f"conv3.{Role.WIDTH_LOG_SCALE}": np.full(len(step_O), np.log(2), np.float32)}
    doubled = coded_weight(network, layer, precision, scaled).step_O
    np.testing.assert_allclose(doubled, coded.step_O * (1 if bits == 8 else 2), rtol=1e-6)


def test_pinned_layers_keep_eight_bits() -> None:
    for nested in (False, True):
        network = cnn4(width=0.25, nested=nested)
        tensors = initial_tensors(network, Precision(1, 8), seed=1)
        assert coded_weight(network, network.by_name["conv1"], Precision(1, 8), tensors).bits == 8


def test_a_standardized_filter_has_mean_zero_and_norm_one() -> None:
    weight = np.random.default_rng(0).normal(3, 2, size=(5, 4, 3, 3)).astype(np.float32)
    rows = standardized(weight).reshape(5, -1).astype(np.float64)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-7)
    np.testing.assert_allclose((rows**2).sum(axis=1), 1, rtol=1e-6)
    assert (standardized(np.full((2, 3, 1, 1), 7, np.float32)) == 0).all()
