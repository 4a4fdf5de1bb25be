"""Work on large tensors block by block, so that a chain of small operations runs in the processor's cache.

A quantizer is ten operations on every activation of a batch. Each over the whole tensor would fetch it from memory
again, and would allocate a temporary of its size; over a block of 64 kB the chain costs about one such trip.
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

BLOCK: Final = 1 << 16
"""Values of a block: a handful of float32 buffers of this size fit the 256 kB second-level cache of small cores."""


def block_size(values: Tensor) -> int:
    """How many values to take at once: on an accelerator all of them, where launches cost more than memory does."""
    return BLOCK if values.device.type == "cpu" else max(values.numel(), 1)


def rows_at_once(weight_OX: Tensor) -> int:
    """How many output channels make up a block."""
    return max(1, block_size(weight_OX) * len(weight_OX) // max(weight_OX.numel(), 1))


def dense(x: Tensor) -> Tensor:
    """The same values in memory without gaps: x itself, in its own layout, where it has none."""
    return x if torch.empty_like(x).stride() == x.stride() else x.contiguous()


def aligned(x: Tensor, like: Tensor) -> Tensor:
    """The same values in the layout of `like`."""
    return x if x.stride() == like.stride() else torch.empty_like(like, dtype=x.dtype).copy_(x)


def blocks(count: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The tensors side by side, `count` entries of their first axis at a time."""
    if len(tensors[0]) <= count:
        return iter([tensors])  # splitting costs small networks as much as their arithmetic
    return zip(*(torch.split(x, count) for x in tensors), strict=True)


def flat(x: Tensor) -> Tensor:
    """All values of a dense tensor in the order of memory, as a view."""
    return x.as_strided((x.numel(),), (1,))


def rows(x_OX: Tensor) -> Tensor:
    """[O, X]: a dense tensor's output channels, each in the order of memory, as a view."""
    size = x_OX[0].numel()
    return x_OX.as_strided((len(x_OX), size), (size, 1))


def step_of(log_step: Tensor) -> Tensor:
    """The step in float64 arithmetic, rounded to float32: libraries differ in the last bit of a float32 exponential."""
    return log_step.double().exp().float()


def total(parts: list[Tensor]) -> Tensor:
    """Sum of the blocks' float32 sums, in float64."""
    return torch.stack(parts).sum(dtype=torch.float64)
