import struct

import numpy as np
import pytest
from codec_contract import SEED, CodecContract
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec.base import TensorCodec
from protocol.codec.clusters import Clusters
from protocol.codec.eden import LEVELS, Eden
from protocol.codec.half import Half
from protocol.codec.huffman import Huffman
from protocol.codec.plain import Plain
from protocol.codec.range_coder import RangeCoder
from protocol.codec.rotation import BLOCK, blocks, matrix, padded_size, rotated, signs, stream, unrotated
from protocol.codec.sign import Sign
from protocol.codec.sparse import Sparse, largest
from protocol.codec.step import Step
from protocol.codec.stochastic_sign import StochasticSign
from protocol.codec.together import Floats, GroupCodec, Halves, Ranges
from protocol.codec.uniform import Uniform
from protocol.errors import Incomplete, Malformed, RemoteProtocolError
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
        assert self.encode(np.array([1.0, -2.0], dtype=np.float32)) == struct.pack("<2f", 1, -2)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite_is_refused(self, value: float) -> None:
        """BF-043."""
        with pytest.raises(Malformed, match="finite"):
            self.codec.read(Reader(struct.pack("<f", value)), 1, SEED).values()


class TestHalf(CodecContract):
    codec = Half()

    @pytest.mark.parametrize("scale", [1e-35, 1e-6, 1.0, 1e4, 1e29])
    def test_the_largest_values_keep_eleven_bits_at_any_scale(self, scale: float) -> None:
        """BF-054."""
        values_N = (VALUES * np.float32(scale)).astype(np.float32)
        assert np.abs(self.round_trip(values_N) - values_N).max() <= 2.0**-11 * np.abs(values_N).max()

    def test_the_layout_by_hand(self) -> None:
        """BF-054: 3 = 24576 · 2^−13."""
        assert self.encode(np.array([3.0], dtype=np.float32)) == struct.pack("<be", -13, 24576.0)

    @pytest.mark.parametrize("data", [struct.pack("<be", -121, 1), struct.pack("<be", 114, 1)])
    def test_an_exponent_out_of_range_is_refused(self, data: bytes) -> None:
        """BF-054."""
        with pytest.raises(Malformed, match="exponent"):
            self.codec.read(Reader(data), 1, SEED).values()

    def test_a_value_that_overflows_is_refused(self) -> None:
        """BF-043."""
        with pytest.raises(Malformed, match="overflows"):
            self.codec.read(Reader(struct.pack("<be", 113, 65504.0)), 1, SEED).values()


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


def test_uniform_to_nearest_errs_by_half_a_step_and_draws_nothing() -> None:
    values, rng = np.random.default_rng(0).normal(size=1000).astype(np.float32), np.random.default_rng(1)
    before = rng.bit_generator.state
    decoded = Uniform(4).read(Reader(Uniform(4, nearest=True).encode(values, rng, 0)), values.size, 0).values()
    step = (values.max() - values.min()) / 15
    assert np.abs(decoded - values).max() <= step * 0.5001
    assert rng.bit_generator.state == before


def test_uniform_by_hand() -> None:
    """BF-052, BF-050: the four levels of two bits are exact, so rounding has no choice."""
    data = Uniform(2).encode(np.array([0, 1, 2, 3, 3], dtype=np.float32), RNG, SEED)
    assert data == struct.pack("<2f", 0, 3) + bytes([0b11100100, 0b00000011])


@pytest.mark.parametrize("bounds", [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_a_uniform_range_that_is_none_is_refused(bounds: tuple[float, float]) -> None:
    """BF-052, BF-043."""
    with pytest.raises(Malformed):
        Uniform(1).read(Reader(struct.pack("<2f", *bounds) + b"\x00"), 1, SEED).values()


class TestStep(CodecContract):
    codec = Step(0.25)

    def test_the_error_stays_below_one_step_and_the_values_on_its_multiples(self) -> None:
        """BF-076, BF-077."""
        decoded_N = self.round_trip(VALUES)
        assert np.abs(decoded_N - VALUES).max() < 0.25
        assert not (decoded_N % 0.25).any()

    def test_rounding_is_unbiased(self) -> None:
        """BF-077: the mean of 400 draws comes within five standard errors, everywhere."""
        values_N = VALUES[:50]
        mean_N = np.mean([self.round_trip(values_N, seed) for seed in range(400)], axis=0)
        assert np.abs(mean_N - values_N).max() <= 5 * (0.25 / 2) / np.sqrt(400)

    def test_the_variance_of_a_value_is_that_of_its_place_between_two_levels(self) -> None:
        """BF-077: Δ²·f·(1 − f), most half way: Δ²/4."""
        for share in (0.0, 0.1, 0.5, 0.8):
            values_N = np.full(100_000, 0.25 * (share - 3), dtype=np.float32)
            square = float(np.square(self.round_trip(values_N) - values_N, dtype=np.float64).mean())
            assert square == pytest.approx(0.25**2 * share * (1 - share), rel=0.05, abs=1e-6)


class TestStepInFeedback(CodecContract):
    codec = Step(0.25, nearest=True)

    def test_it_errs_by_half_a_step_and_draws_nothing(self) -> None:
        """BF-077."""
        rng = np.random.default_rng(1)
        before = rng.bit_generator.state
        decoded_N = self.codec.read(Reader(self.codec.encode(VALUES, rng, SEED)), VALUES.size, SEED).values()
        assert np.abs(decoded_N - VALUES).max() <= 0.125
        assert rng.bit_generator.state == before

    def test_the_layout_by_hand(self) -> None:
        """BF-076, BF-050: levels −1, 0 and 3, so codes 0, 1 and 4 of five, in three bits each."""
        data = self.encode(np.array([-0.3, 0.1, 0.75], dtype=np.float32))
        assert data == struct.pack("<fiB", 0.25, -1, 4) + bytes([0b00001000, 0b1])

    @pytest.mark.parametrize(("value", "level"), [(0.0, 0), (-0.12, 0), (0.5, 2), (-7.2, -29)])
    def test_what_rounds_to_one_level_costs_nine_bytes(self, value: float, level: int) -> None:
        """BF-076: however many values there are."""
        values_N = np.full(100_000, value, dtype=np.float32)
        assert self.encode(values_N) == struct.pack("<fiB", 0.25, level, 0)
        assert (self.round_trip(values_N) == 0.25 * level).all()

    def test_the_bits_follow_from_the_range(self) -> None:
        """BF-076: FedDQ's rule, ⌈log₂⌉ of the number of levels."""
        for levels, bits in ((1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (128, 7), (129, 8), (256, 8)):
            values_N = np.repeat(np.arange(levels, dtype=np.float32) * 0.25, 8)
            assert len(self.encode(values_N)) == 9 + bits * levels
            assert (self.round_trip(values_N) == values_N).all()


class TestStepWithHuffman(CodecContract):
    codec = Step(0.05, Huffman())


class TestStepWithRangeCoder(CodecContract):
    codec = Step(0.05, RangeCoder())

    @pytest.mark.parametrize("nearest", [False, True])
    @pytest.mark.parametrize("steps", [4, 8, 16])
    def test_normal_values_take_the_bits_of_their_deviation_in_steps(self, steps: int, nearest: bool) -> None:
        """BF-076, BF-072: log₂(σ/Δ) + ½·log₂(2πe), within a hundredth of a bit."""
        values_N = np.random.default_rng(8).normal(size=400_000).astype(np.float32)
        data = Step(1 / steps, RangeCoder(), nearest=nearest).encode(values_N, RNG, SEED)
        assert 8 * len(data) / values_N.size == pytest.approx(np.log2(steps) + 2.047, abs=0.012)


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0, 255], 1.0),
        ([0, 255.5], 2.0),
        ([-400, 400], 4.0),
        ([2.0**24, 2.0**24 - 9], 1.0),
        ([2.0**24 + 2], 2.0),
        ([-(2.0**24) - 2], 2.0),
        ([2.0**30], 64.0),
    ],
)
def test_a_step_doubles_until_its_levels_fit(values: list[float], step: float) -> None:
    """BF-077."""
    values_N = np.array(values, dtype=np.float32)
    data = Step(1.0, nearest=True).encode(values_N, RNG, SEED)
    assert struct.unpack("<f", data[:4])[0] == step
    decoded_N = Step(1.0).read(Reader(data), values_N.size, SEED).values()
    assert np.abs(decoded_N - values_N).max() <= step / 2


def test_an_announced_step_is_taken_as_float32_and_zero_is_as_fine_as_fits() -> None:
    """BF-077: either is in the bytes, so that any decoder of the recipe reads them."""
    codec = Step(1.0, nearest=True)
    announced, finest = (codec.with_step(step).encode(VALUES, RNG, SEED) for step in (0.1, 0.0))
    assert struct.unpack("<f", announced[:4])[0] == np.float32(0.1)
    assert 128 <= np.ptp(VALUES) / struct.unpack("<f", finest[:4])[0] <= 255
    for data, bound in ((announced, 0.05), (finest, np.ptp(VALUES) / 256)):
        assert np.abs(codec.read(Reader(data), VALUES.size, SEED).values() - VALUES).max() <= bound * 1.0001


@pytest.mark.parametrize(
    ("step", "low", "top", "refusal"),
    [
        (0.0, 0, 0, "malformed"),
        (-1.0, 0, 0, "malformed"),
        (np.nan, 0, 0, "not-finite"),
        (np.inf, 0, 0, "not-finite"),
        (1.0, -(2**24) - 1, 0, "malformed"),
        (1.0, 2**24 + 1, 0, "malformed"),
        (1.0, 2**24, 1, "malformed"),
        (1e32, 2**24, 0, "not-finite"),
        (2e38, -1, 3, "not-finite"),
        (1.0, 0, 2, "malformed"),
    ],
)
def test_a_step_or_levels_that_are_none_are_refused(step: float, low: int, top: int, refusal: str) -> None:
    """BF-076, BF-043: the last one for its code 3 of three levels."""
    with pytest.raises(Malformed) as caught:
        Step(1.0).read(Reader(struct.pack("<fiB", step, low, top) + b"\x03"), 1, SEED)
    assert caught.value.refusal == refusal


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
        data = self.encode(np.array([1, -1, 0, 2], dtype=np.float32))
        assert data == struct.pack("<f", 1) + bytes([0b1101])

    @pytest.mark.parametrize("data", [struct.pack("<f", -1) + b"\x00", struct.pack("<f", 1) + b"\x10"])
    def test_a_negative_scale_or_bits_after_the_last_sign_are_refused(self, data: bytes) -> None:
        """BF-053, BF-050."""
        with pytest.raises(Malformed):
            self.codec.read(Reader(data), 4, SEED).values()


class TestStochasticSign(CodecContract):
    codec = StochasticSign(4.0)

    def test_it_is_unbiased(self) -> None:
        """BF-057: the mean of 400 draws comes within five standard errors, everywhere."""
        values_N = VALUES[:50]
        mean_N = np.mean([self.round_trip(values_N, seed) for seed in range(400)], axis=0)
        assert np.abs(mean_N - values_N).max() <= 5 * 4.0 / np.sqrt(400)

    def test_every_value_is_one_step_from_zero(self) -> None:
        """BF-057: so that sums over devices count bits."""
        assert set(np.abs(self.round_trip(VALUES)).tolist()) == {4.0}

    def test_beyond_the_step_there_is_no_choice(self) -> None:
        """BF-057, BF-050."""
        values_N = np.array([9, -9, 4, 5], dtype=np.float32)
        assert self.encode(values_N) == struct.pack("<f", 4) + bytes([0b1101])

    def test_without_a_step_it_takes_the_largest_magnitude(self) -> None:
        """BF-057."""
        data = StochasticSign().encode(VALUES, RNG, SEED)
        assert struct.unpack("<f", data[:4])[0] == np.abs(VALUES).max()


class EdenContract(CodecContract):
    codec: Eden
    error: float
    contracted: float | None = None

    def test_the_relative_error_is_that_of_the_paper(self) -> None:
        """BF-058: within 5 %, on values that are anything but normal."""
        values_N = (RNG.random(50_000) < 0.05).astype(np.float32) * VALUES[:1] + np.float32(0.01)
        error_N = self.round_trip(values_N) - values_N
        assert (error_N**2).sum() / (values_N**2).sum() == pytest.approx(self.error, rel=0.05)

    def test_what_the_codes_stand_for_is_unbiased(self) -> None:
        """BF-058: over rotations, the mean comes closer as 1/√(their number)."""
        values_N, number = VALUES[:640], 300
        decoded = [
            self.codec.read(Reader(self.codec.encode(values_N, RNG, seed)), 640, seed).values()
            for seed in range(number)
        ]
        error_N = np.mean(decoded, axis=0) - values_N
        expected = self.error / number
        assert (error_N**2).sum() / (values_N**2).sum() <= 1.5 * expected


class TestEden1(EdenContract):
    codec, error = Eden(1), 0.571


class TestEden2(EdenContract):
    codec, error = Eden(2), 0.133


class TestEden3(EdenContract):
    codec, error = Eden(3), 0.036


class TestEden4(EdenContract):
    codec, error = Eden(4), 0.0096


class TestEdenHalfABit(EdenContract):
    codec, error = Eden(0.5), 0.571 / 0.5 + 0.5 / 0.5


class TestEdenWithRangeCoder(EdenContract):
    codec, error = Eden(2, coder=RangeCoder()), 0.133


class TestEdenInFeedback(CodecContract):
    codec = Eden(1, contractive=True)

    @pytest.mark.parametrize(("rate", "error"), [(1, 0.363), (2, 0.118), (3, 0.035), (4, 0.0095), (0.1, 0.936)])
    def test_it_leaves_the_smallest_residual(self, rate: float, error: float) -> None:
        """BF-058: never more than was there, even far below one bit, where the unbiased scale would diverge."""
        codec, values_N = Eden(rate, contractive=True), RNG.normal(size=40_000).astype(np.float32)
        left_N = values_N - codec.read(Reader(codec.encode(values_N, RNG, SEED)), values_N.size, SEED).values()
        assert (left_N**2).sum() / (values_N**2).sum() == pytest.approx(error, rel=0.05)


def test_eden_by_hand() -> None:
    """BF-058: 64 times one value is √64 of it in the first place that the signs spell, and nothing elsewhere."""
    values_N = signs(SEED, slice(0, 64)) * np.float32(2)
    data = Eden(2).encode(values_N, RNG, SEED)
    scale = struct.unpack("<f", data[:4])[0]
    codes = [data[4] & 3, data[4] >> 2 & 3]
    assert codes[0] == 3
    assert LEVELS[2][codes[0]] * scale == pytest.approx(2 * 8, rel=1e-6)


def test_the_levels_are_the_means_of_what_is_rounded_to_them() -> None:
    """BF-058: S. P. Lloyd's and J. Max's condition, by sampling the normal distribution finely."""
    z = np.sort(np.random.default_rng(0).normal(size=2_000_000))
    for levels in LEVELS.values():
        ends = np.searchsorted(z, (levels[1:] + levels[:-1]) / 2)
        np.testing.assert_allclose([part.mean() for part in np.split(z, ends)], levels, atol=0.005)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 576, 4095, 4096, 4097, 70_000])
def test_blocks_cover_the_padded_tensor_in_order(count: int) -> None:
    """BF-059."""
    parts = list(blocks(count))
    assert padded_size(count) - count < 64
    assert [part.start for part, _ in parts] == [0, *(part.stop for part, _ in parts[:-1])]
    assert parts[-1][0].stop == padded_size(count)
    sizes = [size for part, size in parts for _ in range((part.stop - part.start) // size)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes.count(BLOCK) == padded_size(count) // BLOCK
    assert all(sizes.count(size) <= 1 for size in sizes if size < BLOCK)


@pytest.mark.parametrize("size", [64, 128, 2048, 4096])
def test_a_rotation_keeps_lengths_and_goes_back(size: int) -> None:
    """BF-059."""
    x_BD = RNG.normal(size=(3, size)).astype(np.float32)
    signs_BD = signs(5, slice(0, 3 * size)).reshape(3, size)
    y_BD = rotated(x_BD, signs_BD)
    np.testing.assert_allclose(y_BD, (x_BD * signs_BD) @ matrix(size), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(y_BD, axis=1), np.linalg.norm(x_BD, axis=1), rtol=1e-5)
    np.testing.assert_allclose(unrotated(y_BD, signs_BD), x_BD, atol=1e-5)


def test_the_stream_is_splitmix64() -> None:
    """BF-059: the generator's published first outputs for seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert stream(1234567, 0, 4).tolist() == expected
    assert stream(1234567, 2, 4).tolist() == expected[2:]


class TestStc(CodecContract):
    codec = Sparse(0.05, Sign())

    def test_the_largest_values_become_plus_or_minus_their_mean(self) -> None:
        """BF-074."""
        decoded_N = self.round_trip(VALUES)
        kept = np.argsort(-np.abs(VALUES))[:50]
        assert np.flatnonzero(decoded_N).tolist() == sorted(kept.tolist())
        np.testing.assert_allclose(decoded_N[kept], np.sign(VALUES[kept]) * np.abs(VALUES[kept]).mean(), rtol=1e-6)

    @pytest.mark.parametrize(("share", "bits"), [(0.2, 0.939), (0.05, 0.339), (0.01, 0.0911), (0.0025, 0.0278)])
    def test_it_costs_what_the_tables_say(self, share: float, bits: float) -> None:
        """BF-074, BF-070: the figures of ALGORITHMS section 2."""
        values_N = np.random.default_rng(4).normal(size=1_000_000).astype(np.float32)
        data = Sparse(share, Sign()).encode(values_N, RNG, SEED)
        assert 8 * len(data) / values_N.size == pytest.approx(bits, rel=0.01)


class TestTopK(CodecContract):
    codec = Sparse(0.1, Half())

    def test_kept_values_keep_eleven_bits(self) -> None:
        """BF-074, BF-054."""
        decoded_N, kept_N = self.round_trip(VALUES), largest(VALUES, 0.1).view(bool)
        np.testing.assert_allclose(decoded_N[kept_N], VALUES[kept_N], rtol=1e-3)
        assert not decoded_N[~kept_N].any()


class TestTopKWithRangeCoder(CodecContract):
    codec = Sparse(0.1, Uniform(4, RangeCoder()), RangeCoder())


def test_of_equal_magnitudes_the_first_are_kept_and_zeros_never() -> None:
    """BF-074."""
    values_N = np.array([0, 1, -1, 1, 0, 2], dtype=np.float32)
    assert largest(values_N, 0.5).tolist() == [0, 1, 1, 0, 0, 1]
    assert largest(values_N, 0.9).tolist() == [0, 1, 1, 1, 0, 1]
    assert largest(np.zeros(4, np.float32), 0.5).tolist() == [0, 0, 0, 0]


class TestFedZip(CodecContract):
    codec = Clusters(0.2, 3)

    def test_the_tails_keep_their_means_and_the_rest_falls_to_one_centroid(self) -> None:
        """BF-075."""
        decoded_N = self.round_trip(VALUES)
        low, middle, high = sorted(set(decoded_N.tolist()))
        assert low < -1 < middle < 1 < high
        assert (decoded_N == middle).mean() >= 0.8
        assert decoded_N[VALUES.argmax()] == high

    def test_the_layout_by_hand(self) -> None:
        """BF-075, BF-070: three clusters of which zero's is the first, then positions 0 and 3 and what they are."""
        values_N = np.array([-4, 0, 0, 8, 0], dtype=np.float32)
        data = Clusters(0.5, 3).encode(values_N, RNG, SEED)
        assert data == struct.pack("<3f", 0, -4, 8) + bytes([2, 0, 1, 0b0110, 0b10])


class TestFedZipWithRangeCoder(CodecContract):
    codec = Clusters(0.3, 5, RangeCoder())


SIZES = np.array([1, 64, 300, 5])
SCALES = np.repeat([1e-3, 1, 1e4, 0], SIZES)
SIDE = (RNG.normal(size=SIZES.sum()) * SCALES).astype(np.float32)


class GroupContract:
    """Small tensors that travel together (BF-055)."""

    group: GroupCodec
    single: TensorCodec

    def encode(self) -> bytes:
        return bytes(self.group.encode(SIDE, SIZES, np.random.default_rng(0)))

    def test_one_alone_has_the_layout_of_its_codec(self) -> None:
        together = self.group.encode(VALUES, np.array([VALUES.size]), np.random.default_rng(3))
        assert bytes(together) == bytes(self.single.encode(VALUES, np.random.default_rng(3), SEED))

    def test_each_keeps_its_own_precision(self) -> None:
        reader, ends = Reader(self.encode()), SIZES.cumsum()[:-1]
        decoded_N = self.group.read(reader, SIZES).values()
        reader.finish()
        for part, wanted in zip(np.split(decoded_N, ends), np.split(SIDE, ends), strict=True):
            assert np.abs(part - wanted).max() <= np.ptp(wanted) / 255 + np.abs(wanted).max() * 2.0**-10

    def test_every_strict_prefix_is_incomplete(self) -> None:
        """BF-042."""
        data = self.encode()
        for end in range(len(data)):
            with pytest.raises(Incomplete):
                self.group.read(Reader(data[:end]), SIZES)

    @given(data=st.binary(min_size=1500, max_size=1500))
    def test_any_bytes_are_finite_or_refused(self, data: bytes) -> None:
        """BF-042, BF-043."""
        try:
            assert np.isfinite(self.group.read(Reader(data), SIZES).values()).all()
        except RemoteProtocolError:
            return


class TestFloats(GroupContract):
    group, single = Floats(), Plain()


class TestRanges(GroupContract):
    group, single = Ranges(), Uniform(8)


class TestHalves(GroupContract):
    group, single = Halves(), Half()


def test_a_range_that_is_none_is_refused_by_the_number_of_its_tensor() -> None:
    """BF-055."""
    data = struct.pack("<4f", 0, 1, 2, 1) + bytes(2)
    with pytest.raises(Malformed, match="side tensor 1"):
        Ranges().read(Reader(data), np.array([1, 1]))
