import struct

import numpy as np
import pytest
from codec_contract import CodecContract

from protocol.codec.half import Half
from protocol.codec.plain import Plain
from protocol.codec.sign import Sign
from protocol.codec.uniform import Uniform
from protocol.errors import Malformed
from protocol.reader import Reader

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=1000).astype(np.float32)


class TestPlain(CodecContract):
    codec = Plain()

    def test_values_come_back_bit_for_bit(self) -> None:
        """BF-051."""
        assert (self.round_trip(VALUES) == VALUES).all()

    def test_the_layout_by_hand(self) -> None:
        """BF-051."""
        assert self.codec.encode(np.array([1.0, -2.0], dtype=np.float32), RNG) == struct.pack("<2f", 1, -2)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite_is_refused(self, value: float) -> None:
        """BF-043."""
        with pytest.raises(Malformed, match="finite"):
            self.codec.decode(Reader(struct.pack("<f", value)), 1)


class TestHalf(CodecContract):
    codec = Half()

    @pytest.mark.parametrize("scale", [1e-35, 1e-6, 1.0, 1e4, 1e29])
    def test_the_largest_values_keep_eleven_bits_at_any_scale(self, scale: float) -> None:
        """BF-054."""
        values_N = (VALUES * np.float32(scale)).astype(np.float32)
        assert np.abs(self.round_trip(values_N) - values_N).max() <= 2.0**-11 * np.abs(values_N).max()

    def test_the_layout_by_hand(self) -> None:
        """BF-054: 3 = 24576 · 2^−13."""
        assert self.codec.encode(np.array([3.0], dtype=np.float32), RNG) == struct.pack("<be", -13, 24576.0)

    @pytest.mark.parametrize("data", [struct.pack("<be", -121, 1), struct.pack("<be", 114, 1)])
    def test_an_exponent_out_of_range_is_refused(self, data: bytes) -> None:
        """BF-054."""
        with pytest.raises(Malformed, match="exponent"):
            self.codec.decode(Reader(data), 1)

    def test_a_value_that_overflows_is_refused(self) -> None:
        """BF-043."""
        with pytest.raises(Malformed, match="overflows"):
            self.codec.decode(Reader(struct.pack("<be", 113, 65504.0)), 1)


class UniformContract(CodecContract):
    bits: int

    def test_the_error_stays_below_one_step(self) -> None:
        """BF-052."""
        step = (VALUES.max() - VALUES.min()) / (2**self.bits - 1)
        assert np.abs(self.round_trip(VALUES) - VALUES).max() <= step * 1.0001

    def test_rounding_is_unbiased(self) -> None:
        """BF-052: the mean of 400 draws comes within five standard errors, everywhere."""
        values_N = VALUES[:50]
        step = (values_N.max() - values_N.min()) / (2**self.bits - 1)
        mean_N = np.mean([self.round_trip(values_N, seed) for seed in range(400)], axis=0)
        assert np.abs(mean_N - values_N).max() <= 5 * (step / 2) / np.sqrt(400)


def _uniform(bits: int) -> type[UniformContract]:
    return type(f"TestUniform{bits}", (UniformContract,), {"bits": bits, "codec": Uniform(bits)})


TestUniform1, TestUniform2, TestUniform3, TestUniform5, TestUniform8 = (_uniform(bits) for bits in (1, 2, 3, 5, 8))


def test_uniform_by_hand() -> None:
    """BF-052, BF-050: the four levels of two bits are exact, so rounding has no choice."""
    data = Uniform(2).encode(np.array([0, 1, 2, 3, 3], dtype=np.float32), RNG)
    assert data == struct.pack("<2f", 0, 3) + bytes([0b11100100, 0b00000011])


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_a_uniform_range_that_is_none_is_refused(bounds: tuple[float, float]) -> None:
    """BF-052, BF-043."""
    with pytest.raises(Malformed):
        Uniform(1).decode(Reader(struct.pack("<2f", *bounds) + b"\x00"), 1)


class TestSign(CodecContract):
    codec = Sign()

    def test_values_become_plus_or_minus_the_mean_magnitude(self) -> None:
        """BF-053."""
        scale = np.abs(VALUES).mean(dtype=np.float64)
        assert np.allclose(self.round_trip(VALUES), np.where(VALUES >= 0, scale, -scale))

    def test_it_is_a_contraction_of_the_proven_factor(self) -> None:
        """BF-053: 1 − ‖v‖₁²/(N‖v‖₂²), Karimireddy et al., lemma 8."""
        factor = 1 - np.abs(VALUES).sum() ** 2 / (VALUES.size * (VALUES**2).sum())
        error = ((VALUES - self.round_trip(VALUES)) ** 2).sum()
        assert error == pytest.approx(factor * (VALUES**2).sum(), rel=1e-4)

    def test_the_layout_by_hand(self) -> None:
        """BF-053, BF-050."""
        data = self.codec.encode(np.array([1, -1, 0, 2], dtype=np.float32), RNG)
        assert data == struct.pack("<f", 1) + bytes([0b1101])

    @pytest.mark.parametrize("data", [struct.pack("<f", -1) + b"\x00", struct.pack("<f", 1) + b"\x10"])
    def test_a_negative_scale_or_bits_after_the_last_sign_are_refused(self, data: bytes) -> None:
        """BF-053, BF-050."""
        with pytest.raises(Malformed):
            self.codec.decode(Reader(data), 4)
