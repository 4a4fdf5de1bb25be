"""What a foreign file was found to hold, before anybody asks whether it is a network of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.architecture import Shape

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by the names their file gives them."""


@dataclass(frozen=True, slots=True)
class Found:
    """Arrays and where they come from.

    Attributes:
        arrays: of numbers, by name; bfloat16 is widened to float32.
        format: of the file, for people.
        input_shape: (C, H, W) of a picture where the file says so.
    """

    arrays: Arrays = field(repr=False)
    format: str
    input_shape: Shape | None = None


def widened(bfloat16: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Bfloat16, which numpy does not have, as float32: the same bits with sixteen zeros behind them."""
    return (bfloat16.astype(np.uint32) << 16).view(np.float32)


def shape_in_words(shape: Shape) -> str:
    """For example 64×3×7×7, or "a single number"."""
    return "×".join(map(str, shape)) or "a single number"
