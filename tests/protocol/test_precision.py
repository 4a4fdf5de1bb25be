import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Unsupported
from protocol.precision import Precision, binary_step, code_book, fitted_step, max_code, quantize_weight


@pytest.mark.parametrize("name", ["fp32", "W8A8", "W4A8", "W2A8", "W1A8", "W1A1", "W16A32"])
def test_a_precision_prints_as_it_is_parsed(name: str) -> None:
    """BF-062."""
    assert str(Precision.parse(name)) == name


@pytest.mark.parametrize("name", ["", "W9A8", "W4A7", "W4", "w4a8", "W04A8x", "W32A32 ", "int8", "W٤A٨"])
def test_a_precision_that_does_not_exist_is_refused(name: str) -> None:
    """BF-062."""
    with pytest.raises(Unsupported):
        Precision.parse(name)


def test_pinned_layers_never_go_below_eight_bits() -> None:
    """BF-062."""
    assert Precision.parse("W1A8").bits_of(pinned=True) == 8
    assert Precision.parse("W1A8").bits_of(pinned=False) == 1
    assert Precision.parse("fp32").bits_of(pinned=True) == 32


def test_the_code_books_are_those_of_the_specification() -> None:
    """BF-063."""
    assert code_book(1).tolist() == [-1, 1]
    assert code_book(2).tolist() == [-3, -1, 1, 3]
    assert code_book(3).tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert code_book(4).tolist() == list(range(-7, 8))
    assert code_book(8).tolist() == list(range(-64, 65))


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_code_book_is_symmetric_and_fits_its_bits(bits: int) -> None:
    """BF-063."""
    book = code_book(bits)
    assert (book == -book[::-1]).all()
    assert len(book) <= 2**bits


def test_weights_quantize_as_worked_by_hand() -> None:
    """BF-063."""
    weight = np.array([[-9.0, -2.0, -0.1, 0.0, 0.5, 1.5, 2.5, 7.6]], dtype=np.float32)
    one = np.ones(1, dtype=np.float32)
    assert quantize_weight(weight, one, 4).tolist() == [[-7, -2, 0, 0, 0, 2, 2, 7]]
    assert quantize_weight(weight, one, 2).tolist() == [[-3, -1, -1, 1, 1, 1, 3, 3]]
    assert quantize_weight(weight, one, 1).tolist() == [[-1, -1, -1, 1, 1, 1, 1, 1]]


@given(bits=st.integers(1, 8), seed=st.integers(0, 99))
def test_quantized_weights_are_in_the_code_book_and_off_by_at_most_a_step(bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(4, 5, 3, 3)).astype(np.float32)
    step = fitted_step(weight, bits)
    codes = quantize_weight(weight, step, bits)
    assert np.isin(codes, code_book(bits)).all()
    inside = np.abs(weight) <= max_code(bits) * step[:, None, None, None]
    error = np.abs(codes * step[:, None, None, None] - weight)
    assert (error <= step[:, None, None, None] * 1.0001)[inside].all()


@pytest.mark.parametrize(("bits", "published"), [(1, 0.3634), (2, 0.1188), (3, 0.0374), (4, 0.01154)])
def test_a_fitted_step_comes_to_the_least_error_of_a_uniform_quantizer(bits: int, published: float) -> None:
    """Of a normal value (J. Max, "Quantizing for Minimum Distortion", IRE 1960, table II).

    At 3 and 4 bits our grid has one level less, for the sake of a zero.
    """
    weight = np.random.default_rng(0).normal(size=(3, 40_000)).astype(np.float32)
    step = fitted_step(weight, bits)
    error = np.square(quantize_weight(weight, step, bits) * step[:, None] - weight).mean()
    assert published * 0.98 < error < published * (1.02 if bits < 3 else 1.35)


def test_a_fitted_step_of_zeros_is_positive() -> None:
    assert (fitted_step(np.zeros((2, 9), np.float32), 4) > 0).all()


def test_the_binary_scale_is_the_mean_magnitude_and_never_zero() -> None:
    """BF-063."""
    weight = np.array([[1.0, -3.0], [0.0, 0.0]], dtype=np.float32)
    step = binary_step(weight)
    assert step[0] == 2.0
    assert 0 < step[1] < 1e-6


def test_two_bits_without_zero_beat_three_levels_on_bell_shaped_weights() -> None:
    """Why the 2-bit grid is mid-rise: its best mean squared error on a normal weight is the lower one."""
    weight = np.random.default_rng(0).normal(size=20_000)

    def best_error(book: list[int]) -> float:
        levels = np.array(book)
        return min(
            float(np.min((weight[:, None] - step * levels) ** 2, axis=1).mean()) for step in np.linspace(0.2, 2, 60)
        )

    assert best_error([-3, -1, 1, 3]) < 0.7 * best_error([-1, 0, 1])
