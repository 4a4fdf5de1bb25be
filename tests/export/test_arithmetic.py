"""The rounding that every exported network obeys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import arithmetic
from export.arithmetic import plain_coding
from export.errors import ExportError
from protocol.architecture import Architecture
from protocol.precision import Precision

UNIT = np.float32(1)
UNSIGNED, SIGNED = plain_coding(UNIT, 8, signed=False), plain_coding(UNIT, 8, signed=True)


def test_halves_round_to_the_even_level() -> None:
    sums = np.array([1, 3, 5, 7, -1])
    assert arithmetic.requantize(sums, np.float32(0.5), UNSIGNED).tolist() == [0, 2, 2, 4, 0]


def test_signed_activations_are_stored_around_128_and_clip_at_both_ends() -> None:
    sums = np.array([-1000, -128, -1, 0, 127, 1000])
    assert arithmetic.requantize(sums, np.float32(1), SIGNED).tolist() == [0, 0, 127, 128, 255, 255]


def test_a_multiplier_that_overflows_clips_like_any_large_value() -> None:
    assert arithmetic.requantize(np.array([2**30]), np.float32(1e38), UNSIGNED).tolist() == [255]


@given(step=st.floats(2.0**-20, 2.0**10, width=32))
def test_the_add_in_float_is_the_add_in_integers_for_every_pair(step: float) -> None:
    """Exhaustive over both operands: what `integer_arithmetic` writes is what `arithmetic.add` defines."""
    left, right = np.arange(256, dtype=np.uint8)[:, None], np.arange(256, dtype=np.uint8)[None, :]
    scale = np.float32(step)
    for right_coding in (UNSIGNED, SIGNED):
        for coding in (UNSIGNED, SIGNED):
            dequantized = (left.astype(np.float32) - 128) * scale + (
                right.astype(np.float32) - right_coding.zero
            ) * scale
            stored = np.clip(np.rint(dequantized / scale) + coding.zero, 0, 255).astype(np.uint8)
            assert np.array_equal(stored, arithmetic.add(left, SIGNED, right, right_coding, coding))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_b_bits_store_2_to_the_b_levels(bits: int) -> None:
    for coding in (plain_coding(UNIT, bits, signed=False), plain_coding(UNIT, bits, signed=True)):
        stored = arithmetic.store(np.arange(-300.0, 300), coding)
        assert np.array_equal(np.unique(stored), np.arange(coding.low, coding.high + 1))
        assert coding.high - coding.low + 1 == 1 << bits
        assert coding.is_narrow is (bits < 8)


@pytest.mark.parametrize(
    ("offset", "zero"), [(0.0, 0), (-1.5, 3), (-1.25, 2), (-1.75, 4), (-100.0, 7), (3.0, 0), (-3e38, 7)]
)
def test_a_learned_offset_gives_the_zero_its_formula_says(offset: float, zero: int) -> None:
    """z = clip(rint(−β / 0.5), 0, 7): 2.5 rounds to 2 and 3.5 to 4."""
    assert arithmetic.offset_zero(np.float32(0.5), 3, np.float32(offset)) == zero


def test_a_narrowed_signed_stream_keeps_its_zero_exactly() -> None:
    coding = arithmetic.offset_coding(np.float32(0.5), 2, 1)
    stored = arithmetic.store(np.array([-9.0, -1, -0.4, 0, 0.6, 1, 2, 9]), coding)
    assert stored.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert arithmetic.dequantize(stored, coding).tolist() == [-0.5, -0.5, 0, 0, 0.5, 0.5, 1, 1]
    assert coding.pad == coding.zero


def test_one_signed_bit_is_a_step_up_or_down_and_pads_down() -> None:
    coding = arithmetic.binary_coding(np.float32(0.25))
    assert arithmetic.dequantize(np.array([coding.low, coding.high, coding.pad], np.uint8), coding).tolist() == [
        -0.25,
        0.25,
        -0.25,
    ]


@pytest.mark.parametrize("name", ["W4A32", "W1A32", "W16A8", "W8A32", "W32A8", "W16A4"])
def test_precisions_that_are_not_written_are_refused_by_name(name: str) -> None:
    with pytest.raises(ExportError, match=f"precision {name}: the exporter writes fp32 and W1 to W8 with A1, A2"):
        arithmetic.require_supported(Precision.parse(name))


def test_nested_codes_have_no_seven_bits() -> None:
    arithmetic.require_supported(Precision(7, 8))
    with pytest.raises(ExportError, match="precision W7A8: nested codes have"):
        arithmetic.require_supported(Precision(7, 8), nested=True)


def test_only_an_average_pool_has_pixels_to_sum(small: Architecture) -> None:
    assert arithmetic.pixels(small.by_name["pool"]) == 16
    with pytest.raises(ExportError, match=r"layer stem\.conv is conv: expected avgpool"):
        arithmetic.pixels(small.layers[0])
