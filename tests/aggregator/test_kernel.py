"""The inner loops of the merge: what each must compute, and that the compiled ones give the bits of the plain ones."""

import os
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merge.kernel import GROUP, Kernel, available
from protocol.codec.rotation import signs, stream, unrotated

SIZES = st.one_of(st.integers(1, 70), st.integers(2000, 9000))
"""Within one piece of every loop, and across several."""
SEEDS = st.integers(0, 1 << 32)
Int64 = npt.NDArray[np.int64]


def ones(packed: npt.NDArray[np.uint8], count: int) -> Int64:
    """The plain version of every packed vector."""
    return np.unpackbits(packed, bitorder="little")[:count].astype(np.int64)


def bits(rng: np.random.Generator, vectors: int, size: int) -> list[npt.NDArray[np.uint8]]:
    """Vectors that begin at odd places, as payloads have them."""
    return [rng.integers(0, 256, size + 3, dtype=np.uint8)[3:] for _ in range(vectors)]


class KernelContract:
    """Inherit, and set `name`."""

    name: ClassVar[str]

    @property
    def kernel(self) -> Kernel:
        return available()[self.name]

    @given(SIZES, st.integers(1, GROUP), SEEDS, st.sampled_from([0.001, 1.0, 1000.0]))
    def test_floats_are_rounded_once_and_added_as_integers(
        self, size: int, vectors: int, seed: int, scale: float
    ) -> None:
        rng = np.random.default_rng(seed)
        values = [(rng.standard_normal(size) * scale).astype("<f4") for _ in range(vectors)]
        weights = rng.integers(1, 100_000, vectors)
        start = rng.integers(-(2**60), 2**60, size)
        self.kernel.add_floats(total := start.copy(), [_unaligned(one) for one in values], weights)
        expected = start.copy()
        for one, weight in zip(values, weights, strict=True):
            expected += np.rint(one * 2.0**32).astype(np.int64) * weight
        np.testing.assert_array_equal(total, expected)

    @pytest.mark.parametrize("x", [0.5, 1.5, 2.5, -0.5, -1.5, 2.0**18, 2.0**18 + 0.03125, -(2.0**30), 1e-40, -0.0])
    @pytest.mark.parametrize("weight", [1, 3, 2**20 + 1])
    def test_halves_round_to_even_and_large_products_are_exact(self, x: float, weight: int) -> None:
        value = np.float32(x if abs(x) >= 1e4 or abs(x) < 1e-30 else x * 2.0**-32)
        total = np.zeros(1, dtype=np.int64)
        self.kernel.add_floats(total, [_unaligned(np.array([value], dtype="<f4"))], np.array([weight]))
        product = round(float(value) * 2**32) * weight
        assert int(total[0]) == (product + 2**63) % 2**64 - 2**63

    @given(st.lists(st.integers(1, 40), min_size=1, max_size=9), SEEDS, st.sampled_from([1e-3, 1.0, 1e4, 1e6]))
    def test_codes_are_values_of_their_tensor_s_range(self, sizes: list[int], seed: int, scale: float) -> None:
        rng = np.random.default_rng(seed)
        low = (rng.standard_normal(len(sizes)) * scale).astype(np.float32).astype(np.float64)
        step = rng.random(len(sizes)) * scale / 255
        codes = rng.integers(0, 256, sum(sizes), dtype=np.uint8)
        total = rng.integers(-(2**58), 2**58, codes.size)
        expected = total.copy()
        self.kernel.add_codes(total, codes, low, step, np.array(sizes), 100)
        at = 0
        for tensor, size in enumerate(sizes):
            for code in codes[at : at + size]:
                value = np.float32(int(code) * step[tensor] + low[tensor])
                expected[at] += np.int64(np.rint(value * np.float64(2**32))) * 100
                at += 1
        np.testing.assert_array_equal(total, expected)

    @pytest.mark.parametrize(
        ("low", "step"), [(np.nan, 1), (0, np.nan), (np.inf, 1), (-np.inf, 1), (2.0**31, 0), (0, 2.0**24)]
    )
    def test_ranges_that_are_no_integers_of_64_bits_are_refused(self, low: float, step: float) -> None:
        total, ends, steps = np.zeros(3, dtype=np.int64), np.array([low, 0.0]), np.array([step, 1.0])
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="64 bits"):
            self.kernel.add_codes(total, np.full(3, 255, np.uint8), ends, steps, np.array([2, 1]), 1)
        assert not total.any()

    def test_codes_of_large_tensors_are_added_across_pieces(self) -> None:
        sizes, rng = np.array([2047, 2048, 1, 5000]), np.random.default_rng(3)
        low, step = np.array([-1.0, 2.0, 0.5, -3.0]), np.array([0.01, 0.0, 0.1, 0.02])
        codes = rng.integers(0, 256, sizes.sum(), dtype=np.uint8)
        self.kernel.add_codes(total := np.zeros(codes.size, dtype=np.int64), codes, low, step, sizes, 5)
        values = (codes * np.repeat(step, sizes) + np.repeat(low, sizes)).astype(np.float32)
        np.testing.assert_array_equal(total, np.rint(values * np.float64(2**32)).astype(np.int64) * 5)

    @pytest.mark.parametrize("sizes", [[1, 1], [2, 2], [4, -1], [3]])
    def test_tensors_that_do_not_make_up_the_sum_are_refused(self, sizes: list[int]) -> None:
        ends = np.zeros(2)
        with pytest.raises(ValueError, match="add up"):
            self.kernel.add_codes(np.zeros(3, np.int64), np.zeros(3, np.uint8), ends, ends, np.array(sizes), 1)

    @given(SIZES, SEEDS, st.sampled_from([0.001, 1.0, 3000.0, 1e5]), st.sampled_from([1, 300, 60_000]))
    def test_moments_are_rounded_once_and_the_square_is_of_the_rounded_mean(
        self, size: int, seed: int, scale: float, pictures: int
    ) -> None:
        rng = np.random.default_rng(seed)
        mean = (rng.standard_normal(size) * scale).astype(np.float32)
        variance = (rng.random(size) * scale).astype(np.float32)
        sums, squares = rng.integers(-(2**60), 2**60, (2, size))
        expected, expected_squares = sums.copy(), squares.copy()
        self.kernel.add_moments(sums, squares, mean, variance, pictures)
        whole = np.rint(mean * np.float64(2**20))
        expected += whole.astype(np.int64) * pictures
        expected_squares += np.rint((variance + (whole / 2**20) ** 2) * 2**20).astype(np.int64) * pictures
        np.testing.assert_array_equal(sums, expected)
        np.testing.assert_array_equal(squares, expected_squares)

    @pytest.mark.parametrize(
        ("mean", "variance"), [(np.nan, 1), (1, np.nan), (np.inf, 1), (1, np.inf), (4e6, 1), (1, 1e14)]
    )
    def test_moments_that_are_no_integers_of_64_bits_are_refused(self, mean: float, variance: float) -> None:
        sums, squares = np.zeros((2, 2), dtype=np.int64)
        moments = np.array([[1, mean], [1, variance]], dtype=np.float32)
        with pytest.raises(ValueError, match="64 bits"):
            self.kernel.add_moments(sums, squares, *moments, 1)
        assert not sums.any()
        assert not squares.any()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**31, -(2.0**40)])
    def test_floats_that_are_no_integers_of_64_bits_are_refused(self, value: float) -> None:
        values = np.array([1, value], dtype="<f4").view(np.uint8)
        with pytest.raises(ValueError, match="64 bits"):
            self.kernel.add_floats(np.zeros(2, dtype=np.int64), [values], np.array([1]))

    @given(st.lists(st.sampled_from([8, 64, 128, 4096]), max_size=3), SIZES, st.integers(1, GROUP), SEEDS)
    def test_signs_add_up_block_by_block(self, blocks: list[int], last: int, vectors: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sizes = np.array([*blocks, last])
        coefficients = rng.integers(-(2**62), 2**62, (sizes.size, vectors))
        offsets = rng.integers(-(2**62), 2**62, sizes.size)
        packed = bits(rng, vectors, -(-int(sizes.sum()) // 8))
        start = rng.integers(-(2**62), 2**62, sizes.sum())
        self.kernel.add_signs(total := start.copy(), packed, coefficients, offsets, sizes)
        expected = start + np.repeat(offsets, sizes)
        for vector, coefficient in zip(packed, coefficients.T, strict=True):
            expected += (2 * ones(vector, total.size) - 1) * np.repeat(coefficient, sizes)
        np.testing.assert_array_equal(total, expected)

    @given(st.one_of(st.integers(1, 70), st.integers(1000, 3000)), st.integers(1, 11), st.integers(0, GROUP), SEEDS)
    def test_ones_are_counted(self, size: int, levels: int, vectors: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        planes = rng.integers(0, 256, (levels, size), dtype=np.uint8)
        packed = bits(rng, vectors, size)
        expected = _counts(planes) + sum(ones(vector, 8 * size) for vector in packed)
        self.kernel.count(planes, levels, packed)
        np.testing.assert_array_equal(_counts(planes), expected % (1 << levels))

    @pytest.mark.parametrize("size", [64, 128, 256, 2048, 4096])
    def test_the_way_back_is_that_of_a_single_update(self, size: int) -> None:
        rows = np.random.default_rng(size).standard_normal((3, size))
        words = stream(7, 0, 3 * size // 64).astype("<u8").view(np.uint8)
        self.kernel.unrotate(values := rows.reshape(-1).copy(), size, words, size**-0.5)
        expected = unrotated(rows, signs(7, slice(0, 3 * size)).reshape(3, size))
        np.testing.assert_allclose(values.reshape(3, size), expected, rtol=1e-5, atol=1e-5)

    @given(SIZES, SEEDS)
    def test_models_move_by_quotients(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        base, total = rng.standard_normal(size).astype(np.float32), rng.standard_normal(size) * 1e12
        self.kernel.move(moved := np.empty_like(base), base, total, 3e11)
        np.testing.assert_array_equal(moved, (base.astype(np.float64) + total / 3e11).astype(np.float32))

    @given(SIZES, st.integers(1, 8), SEEDS)
    def test_models_move_by_what_a_table_has(self, size: int, vectors: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        base, table = rng.standard_normal(size).astype(np.float32), rng.standard_normal(256)
        packed = bits(rng, vectors, -(-size // 8))
        self.kernel.look_up(moved := np.empty_like(base), base, packed, table)
        index = sum(ones(vector, size) << place for place, vector in enumerate(packed))
        np.testing.assert_array_equal(moved, (base.astype(np.float64) + table[index]).astype(np.float32))


class TestPlain(KernelContract):
    name = "plain"


@pytest.mark.skipif(
    "native" not in available() and os.environ.get("CI") != "true",
    reason="the extension module aggregator.merge._kernel is not built",
)
class TestNative(KernelContract):
    name = "native"

    @given(st.sampled_from([64, 512, 1024, 4096]), SEEDS)
    def test_the_way_back_has_the_bits_of_the_plain_one(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        values, packed = rng.standard_normal(2 * size) * 1e12, rng.integers(0, 256, size // 4, dtype=np.uint8)
        several = []
        for kernel in (self.kernel, available()["plain"]):
            kernel.unrotate(copy := values.copy(), size, packed, size**-0.5)
            several.append(copy.tobytes())
        assert several[0] == several[1]

    WRONG: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        "too short a vector": ("add_floats", (np.zeros(3, np.int64), [np.zeros(11, np.uint8)], np.ones(1, np.int64))),
        "no weight": ("add_floats", (np.zeros(3, np.int64), [np.zeros(12, np.uint8)], np.ones(0, np.int64))),
        "a mean too few": (
            "add_moments",
            (np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(2, np.float32), np.zeros(3, np.float32), 1),
        ),
        "a sum of squares too many": (
            "add_moments",
            (np.zeros(3, np.int64), np.zeros(4, np.int64), np.zeros(3, np.float32), np.zeros(3, np.float32), 1),
        ),
        "too many vectors": ("count", (np.zeros((4, 2), np.uint8), 4, [np.zeros(2, np.uint8)] * (GROUP + 1))),
        "planes of no size": ("count", (np.zeros(7, np.uint8), 4, [])),
        "no level": ("count", (np.zeros(7, np.uint8), 0, [])),
        "not a row": ("unrotate", (np.zeros(96), 48, np.zeros(12, np.uint8), 1.0)),
        "too few signs": ("unrotate", (np.zeros(64), 64, np.zeros(7, np.uint8), 1.0)),
        "too long a row": ("unrotate", (np.zeros(8192), 8192, np.zeros(1024, np.uint8), 1.0)),
        "another base": ("move", (np.zeros(3, np.float32), np.zeros(2, np.float32), np.zeros(3), 1.0)),
        "too small a table": ("look_up", (np.zeros(3, np.float32), np.zeros(3, np.float32), [], np.zeros(255))),
        "nine vectors": (
            "look_up",
            (np.zeros(3, np.float32), np.zeros(3, np.float32), [np.zeros(1, np.uint8)] * 9, np.zeros(256)),
        ),
        "ragged blocks": (
            "add_signs",
            (np.zeros(20, np.int64), [], np.zeros((2, 0), np.int64), np.zeros(2, np.int64), np.array([4, 16])),
        ),
        "blocks that do not add up": (
            "add_signs",
            (np.zeros(20, np.int64), [], np.zeros((2, 0), np.int64), np.zeros(2, np.int64), np.array([8, 8])),
        ),
    }

    @pytest.mark.parametrize("wrong", WRONG)
    def test_arguments_that_do_not_fit_are_refused_before_memory_is_touched(self, wrong: str) -> None:
        function, arguments = self.WRONG[wrong]
        with pytest.raises(ValueError, match="expected"):
            getattr(self.kernel, function)(*arguments)


@pytest.mark.parametrize(("name", "status"), [("plain", 0), ("abacus", 1)])
def test_the_kernel_can_be_named(name: str, status: int) -> None:
    code = f"from aggregator.merge.kernel import chosen; assert chosen() == {name!r}"
    environment = os.environ | {"BITFLEET_KERNEL": name}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert ("expected one of" in ran.stderr) == bool(status)


def _unaligned(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"\0" + values.tobytes(), dtype=np.uint8)[1:]


def _counts(planes: npt.NDArray[np.uint8]) -> Int64:
    return sum((ones(plane, 8 * plane.size) << level for level, plane in enumerate(planes)), np.int64(0))
