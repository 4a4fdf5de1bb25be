"""The kernel in torch: what runs on accelerators and where nothing could be compiled (`kernel.Kernel`).

What the backward pass needs of an activation is one byte, its *trace*: how far it was rounded, in 1/252 of a step, or
that it was clipped and at which end.
"""

from collections.abc import Iterator
from math import inf
from typing import Final

import numpy as np
import torch
from torch import Tensor

from edge.training.quantizers.blocks import block_size, blocks, flat, rows, rows_at_once, total
from edge.training.quantizers.grid import Grid

CLIPPED: Final = 127
"""Trace of a value above the range; its negative, of one below."""
FINENESS: Final = 253.9
"""Traces per step of rounding, so that half a step, the most there is, stays below the mark of clipping."""
KEPT: Final = 252.0
"""The same on average once the conversion to integers has cut off the fraction."""


def quantize_values(values: Tensor, levels: Tensor, trace: Tensor, step: Tensor, low: int, high: int, /) -> None:
    """`kernel.Kernel.quantize_values`."""
    for value, level, mark, position, within in _blocks(values, levels, trace):
        torch.div(value, step, out=position)
        torch.clamp(position, low, high, out=within)
        torch.round(within, out=level)
        position.sub_(within).sign_().mul_(CLIPPED)
        within.sub_(level)
        mark.copy_(position.add_(within, alpha=FINENESS))
        level.mul_(step)


def pass_values(gradient: Tensor, trace: Tensor, passed: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
    """`kernel.Kernel.pass_values`."""
    rounding, ends, clipped = [], [], []
    for slope, mark_int8, kept, mark, outside in _blocks(gradient, trace, passed):
        mark.copy_(mark_int8)
        torch.ops.aten.hardtanh_backward(slope, mark, -CLIPPED, CLIPPED, grad_input=kept)
        torch.sub(slope, kept, out=outside)
        rounding.append(torch.dot(kept, mark))
        ends.append(torch.dot(outside, mark))
        clipped.append(outside.sum())
    return total(rounding) / KEPT, total(ends) / CLIPPED, total(clipped)


def quantize_rows(weight_OX: Tensor, levels_OX: Tensor, step_O: Tensor, unit_O: Tensor, grid: Grid, /) -> None:
    """`kernel.Kernel.quantize_rows`."""
    for weight, step, unit, level in _by_rows(weight_OX, step_O[:, None], unit_O[:, None], levels_OX):
        grid.encode_(torch.div(weight, step, out=level)).mul_(unit)


def pass_rows(
    weight_OX: Tensor, gradient_OX: Tensor, passed_OX: Tensor, step_O: Tensor, grid: Grid, /
) -> tuple[Tensor, Tensor]:
    """`kernel.Kernel.pass_rows`."""
    reach = float(np.nextafter(np.float32(grid.reach), np.float32(inf)))  # hardtanh_backward leaves out the bound
    along_code_O, along_position_O = torch.empty_like(step_O), torch.empty_like(step_O)
    parts = _by_rows(weight_OX, step_O[:, None], gradient_OX, passed_OX, along_code_O, along_position_O)
    for weight, step, gradient, passed, along_code, along_position in parts:
        position = weight / step
        torch.ops.aten.hardtanh_backward(gradient, position, -reach, reach, grad_input=passed)
        torch.sum(passed * position, dim=1, out=along_position)
        torch.sum(grid.encode_(position).mul_(gradient), dim=1, out=along_code)
    return along_code_O, along_position_O


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of dense tensors of one layout, and with each two scratch buffers of its size in the first one's type.

    Scratch is allocated once: memory fresh from the system is slower than the arithmetic.
    """
    size = block_size(tensors[0])
    scratch = torch.empty((2, min(size, tensors[0].numel())), dtype=tensors[0].dtype, device=tensors[0].device)
    for parts in blocks(size, *(flat(x) for x in tensors)):
        yield *parts, *scratch[:, : len(parts[0])]


def _by_rows(weight_OX: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of rows of dense tensors that have one row for each output channel; vectors as they are."""
    return blocks(rows_at_once(weight_OX), *(x if x.dim() == 1 else rows(x) for x in (weight_OX, *others)))
