"""The rounding that every exported network obeys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export import arithmetic
from export.errors import ExportError
from protocol.architecture import Architecture
from protocol.precision import Precision


def test_halves_round_to_the_even_level() -> None:
    sums = np.array([1, 3, 5, 7, -1])
    assert arithmetic.requantize(sums, np.float32(0.5), 0).tolist() == [0, 2, 2, 4, 0]


def test_signed_activations_are_stored_around_128_and_clip_at_both_ends() -> None:
    sums = np.array([-1000, -128, -1, 0, 127, 1000])
    assert arithmetic.requantize(sums, np.float32(1), 128).tolist() == [0, 0, 127, 128, 255, 255]


def test_a_multiplier_that_overflows_clips_like_any_large_value() -> None:
    assert arithmetic.requantize(np.array([2**30]), np.float32(1e38), 0).tolist() == [255]


@given(step=st.floats(2.0**-20, 2.0**10, width=32))
def test_the_add_in_float_is_the_add_in_integers_for_every_pair(step: float) -> None:
    """Exhaustive over both operands: what `integer_arithmetic` writes is what `arithmetic.add` defines."""
    left, right = np.arange(256, dtype=np.uint8)[:, None], np.arange(256, dtype=np.uint8)[None, :]
    scale = np.float32(step)
    for zero in (0, 128):
        dequantized = (left.astype(np.float32) - 128) * scale + (right.astype(np.float32) - zero) * scale
        stored = np.clip(np.rint(dequantized / scale), 0, 255).astype(np.uint8)
        assert np.array_equal(stored, arithmetic.add(left, 128, right, zero))


@pytest.mark.parametrize("name", ["W4A4", "W1A1", "W16A8", "W8A32", "W32A8"])
def test_precisions_that_are_not_written_are_refused_by_name(name: str) -> None:
    with pytest.raises(ExportError, match=f"precision {name}: the exporter writes fp32 and W1A8 to W8A8"):
        arithmetic.require_supported(Precision.parse(name))


def test_only_an_average_pool_has_pixels_to_sum(small: Architecture) -> None:
    assert arithmetic.pixels(small.by_name["pool"]) == 16
    with pytest.raises(ExportError, match=r"layer stem\.conv is conv: expected avgpool"):
        arithmetic.pixels(small.layers[0])
