"""The inner loops of the quantizers: the compiled ones give the bits of the plain ones, and touch no memory beyond."""

import os
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge.training.quantizers import kernel, twin
from edge.training.quantizers.grid import Grid
from protocol.precision import activation_range
from protocol.weights import NESTED_BITS

SIZES = st.one_of(st.integers(1, 70), st.integers(4000, 9000))
"""Within one piece of every loop, and across several."""
SEEDS = st.integers(0, 2**32 - 1)
GRIDS = [*(Grid.own(bits) for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16)), *(Grid.nested(bits) for bits in NESTED_BITS)]


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.skipif(
    "native" not in kernel.available() and os.environ.get("CI") != "true",
    reason="the extension module edge.training.quantizers._kernel is not built",
)
class TestNative:
    @property
    def native(self) -> kernel.Kernel:
        return kernel.available()["native"]

    @given(SIZES, SEEDS, st.sampled_from([1, 2, 3, 4, 8]), st.booleans(), st.floats(1e-3, 3))
    def test_values_get_the_twin_s_levels_and_traces(
        self, size: int, seed: int, bits: int, signed: bool, scale: float
    ) -> None:
        values, step = normal(seed, size), torch.tensor([scale])
        low, high = activation_range(bits, signed=signed)
        several = []
        for one in (self.native, twin):
            levels, trace = torch.full_like(values, torch.nan), torch.full((size,), 55, dtype=torch.int8)
            one.quantize_values(values, levels, trace, step, low, high)
            several.append((levels, trace))
        (levels, trace), (expected, marks) = several
        assert torch.equal(levels, expected)
        assert (
            int((trace.int() - marks.int()).abs().max()) <= 1
        )  # one of them may round once where the other does twice
        assert torch.equal(trace.abs() == twin.CLIPPED, marks.abs() == twin.CLIPPED)

    @given(SIZES, SEEDS)
    def test_gradients_of_values_pass_as_the_twin_passes_them(self, size: int, seed: int) -> None:
        gradient = normal(seed, size)
        trace = torch.randint(-128, 128, (size,), generator=torch.Generator().manual_seed(seed)).to(torch.int8)
        trace[::3] = 127
        trace[1::3] = -127
        mine, his = torch.full_like(gradient, torch.nan), torch.empty_like(gradient)
        sums, expected = self.native.pass_values(gradient, trace, mine), twin.pass_values(gradient, trace, his)
        assert torch.equal(mine, his)
        bound = 1e-5 * float(gradient.abs().sum())
        assert sums == pytest.approx([float(x) for x in expected], abs=bound)

    @given(st.integers(1, 5), SIZES, SEEDS, st.sampled_from(GRIDS), st.floats(1e-3, 3))
    def test_rows_get_the_twin_s_levels_and_gradients(
        self, count: int, size: int, seed: int, grid: Grid, scale: float
    ) -> None:
        weight, gradient = normal(seed, count, size), normal(seed + 1, count, size)
        weight[0, 0] = 0.0
        step, unit = normal(seed + 2, count).abs() * scale + 1e-4, normal(seed + 3, count).abs()
        mine, his = torch.full_like(weight, torch.nan), torch.empty_like(weight)
        self.native.quantize_rows(weight, mine, step, unit, grid)
        twin.quantize_rows(weight, his, step, unit, grid)
        assert torch.equal(mine, his)
        sums = self.native.pass_rows(weight, gradient, mine, step, grid)
        expected = twin.pass_rows(weight, gradient, his, step, grid)
        assert torch.equal(mine, his)
        for some, others, largest in zip(sums, expected, (2 * grid.limit, grid.reach), strict=True):
            bound = 1e-5 * float(gradient.abs().sum(1).max()) * max(largest, 1)
            torch.testing.assert_close(some, others, rtol=1e-4, atol=bound)

    @pytest.mark.parametrize(
        ("value", "level"), [(np.nan, np.nan), (np.inf, 7.5), (-np.inf, 0.0), (3e38, 7.5), (1e-45, 0.0)]
    )
    def test_extreme_values_are_clipped_and_what_is_no_number_stays_none(self, value: float, level: float) -> None:
        for one in (self.native, twin):
            values = torch.full((40,), value)
            levels, trace = torch.empty_like(values), torch.empty_like(values, dtype=torch.int8)
            one.quantize_values(values, levels, trace, torch.tensor([0.5]), 0, 15)
            np.testing.assert_array_equal(levels.numpy(), np.full(40, level, np.float32))

    VALUES, BYTES = np.zeros(8, np.float32), np.zeros(8, np.int8)
    ROWS, CODES = np.zeros(2, np.float32), (7.0, 1.0, 0.0)
    WRONG: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        "too few levels": ("quantize_values", (VALUES, VALUES[:7], BYTES, 1.0, 0, 15)),
        "too few traces": ("quantize_values", (VALUES, VALUES.copy(), BYTES[:7], 1.0, 0, 15)),
        "a gradient too short": ("pass_values", (VALUES[:7], BYTES, VALUES.copy())),
        "a trace too long": ("pass_values", (VALUES, np.zeros(9, np.int8), VALUES.copy())),
        "a unit too few": ("quantize_rows", (VALUES, VALUES.copy(), ROWS, ROWS[:1], 0, CODES)),
        "ragged rows": ("quantize_rows", (VALUES, VALUES.copy(), VALUES[:3], VALUES[:3], 0, CODES)),
        "no rows": ("quantize_rows", (VALUES[:0], VALUES[:0].copy(), ROWS[:0], ROWS[:0], 0, CODES)),
        "no such form": ("quantize_rows", (VALUES, VALUES.copy(), ROWS, ROWS, 3, CODES)),
        "a sum too few": (
            "pass_rows",
            (VALUES, VALUES, VALUES.copy(), ROWS, ROWS[:1].copy(), ROWS.copy(), 7.0, 0, CODES),
        ),
        "gradients too few": (
            "pass_rows",
            (VALUES, VALUES[:4], VALUES.copy(), ROWS, ROWS.copy(), ROWS.copy(), 7.0, 0, CODES),
        ),
        "a negative form": (
            "pass_rows",
            (VALUES, VALUES, VALUES.copy(), ROWS, ROWS.copy(), ROWS.copy(), 7.0, -1, CODES),
        ),
    }

    @pytest.mark.parametrize("wrong", WRONG)
    def test_arguments_that_do_not_fit_are_refused_before_memory_is_touched(self, wrong: str) -> None:
        from edge.training.quantizers import _kernel  # noqa: PLC0415 (not built everywhere)

        function, arguments = self.WRONG[wrong]
        with pytest.raises(ValueError, match="expected"):
            getattr(_kernel, function)(*arguments)


@pytest.mark.parametrize(("name", "status"), [("plain", 0), ("abacus", 1)])
def test_the_kernel_can_be_named(name: str, status: int) -> None:
    code = f"from edge.training.quantizers.kernel import available, chosen; assert chosen() is available()[{name!r}]"
    environment = os.environ | {"BITFLEET_KERNEL": name}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == status
    assert ("expected one of" in ran.stderr) == bool(status)


def test_values_of_another_type_are_the_twin_s() -> None:
    assert kernel.kernel_for(torch.zeros(1, dtype=torch.float64)) is twin
    assert kernel.kernel_for(torch.zeros(1, device="meta")) is twin
