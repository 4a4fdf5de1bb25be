"""The compiled kernel over torch's memory (`kernel.Kernel`); importing it fails where it was not built."""

import torch
from torch import Tensor

from edge.training.quantizers import _kernel
from edge.training.quantizers.blocks import flat
from edge.training.quantizers.grid import Grid
from edge.training.quantizers.twin import CLIPPED, KEPT
from protocol.precision import Float32


def quantize_values(values: Tensor, levels: Tensor, trace: Tensor, step: Tensor, low: int, high: int, /) -> None:
    """`kernel.Kernel.quantize_values`."""
    _kernel.quantize_values(_memory(values), _memory(levels), _memory(trace), float(step), low, high)


def pass_values(gradient: Tensor, trace: Tensor, passed: Tensor, /) -> tuple[float, float, float]:
    """`kernel.Kernel.pass_values`."""
    rounding, ends, clipped = _kernel.pass_values(_memory(gradient), _memory(trace), _memory(passed))
    return rounding / KEPT, ends / CLIPPED, clipped


def quantize_rows(weight_OX: Tensor, levels_OX: Tensor, step_O: Tensor, unit_O: Tensor, grid: Grid, /) -> None:
    """`kernel.Kernel.quantize_rows`."""
    _kernel.quantize_rows(
        _memory(weight_OX), _memory(levels_OX), _memory(step_O), _memory(unit_O), grid.form, _codes(grid)
    )


def pass_rows(
    weight_OX: Tensor, gradient_OX: Tensor, passed_OX: Tensor, step_O: Tensor, grid: Grid, /
) -> tuple[Tensor, Tensor]:
    """`kernel.Kernel.pass_rows`."""
    sums_2O = torch.empty((2, len(step_O)))
    along_code_O, along_position_O = sums_2O
    _kernel.pass_rows(
        _memory(weight_OX),
        _memory(gradient_OX),
        _memory(passed_OX),
        _memory(step_O),
        along_code_O.numpy(),
        along_position_O.numpy(),
        grid.reach,
        grid.form,
        _codes(grid),
    )
    return along_code_O, along_position_O


def _codes(grid: Grid) -> tuple[float, float, float]:
    return grid.limit, grid.share, grid.lowest


def _memory(x: Tensor) -> Float32:
    """A dense tensor's values in the order of memory, as numpy sees them."""
    view: Float32 = flat(x).numpy()
    return view
