"""The inner loops of the quantizers: a compiled module where it could be built, else torch.

`native` goes once over its values where `twin`, the same in torch, goes over them ten times; codes and passed gradients
have the same bits, sums are the same up to rounding. BITFLEET_KERNEL=plain or =native names one. Values that torch
keeps on an accelerator are always the twin's.
"""

import os
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from edge.training.quantizers import twin
from edge.training.quantizers.grid import Grid

Scalar = Tensor | float


class Kernel(Protocol):
    """Tensors are float32, without gaps and of one layout; what is written is among the arguments."""

    def quantize_values(
        self, values: Tensor, levels: Tensor, trace: Tensor, step: Tensor, low: int, high: int, /
    ) -> None:
        """Set each level to the step times the value's code in [low, high], and its int8 trace (`twin`)."""
        ...

    def pass_values(self, gradient: Tensor, trace: Tensor, passed: Tensor, /) -> tuple[Scalar, Scalar, Scalar]:
        """Set `passed` to the gradient of the values inside the range, to 0 outside.

        Returns:
            Sums of gradient·(v/s − code) inside, gradient above less gradient below, and gradient outside the range.
        """
        ...

    def quantize_rows(
        self, weight_OX: Tensor, levels_OX: Tensor, step_O: Tensor, unit_O: Tensor, grid: Grid, /
    ) -> None:
        """Set levels to the code of w/s times the row's unit."""
        ...

    def pass_rows(
        self, weight_OX: Tensor, gradient_OX: Tensor, passed_OX: Tensor, step_O: Tensor, grid: Grid, /
    ) -> tuple[Tensor, Tensor]:
        """Set `passed` to the gradient of the weights within the grid's reach, to 0 outside.

        Returns:
            float32[O] each: Σ gradient·code over a row, and Σ passed·(w/s).
        """
        ...


@cache
def available() -> dict[str, Kernel]:
    """The kernels there are, the fastest first."""
    try:
        from edge.training.quantizers import native  # noqa: PLC0415 (not built everywhere)
    except ImportError:
        return {"plain": twin}
    return {"native": native, "plain": twin}


@cache
def chosen() -> Kernel:
    """The kernel that this process uses.

    Raises:
        KeyError: BITFLEET_KERNEL names one that there is not.
    """
    name = os.environ.get("BITFLEET_KERNEL") or next(iter(available()))
    if name not in available():
        raise KeyError(f"BITFLEET_KERNEL={name}: expected one of {', '.join(available())}")
    return available()[name]


def kernel_for(values: Tensor) -> Kernel:
    """The kernel for values where torch has them."""
    return chosen() if values.device.type == "cpu" and values.dtype == torch.float32 else twin
