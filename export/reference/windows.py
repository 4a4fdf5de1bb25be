"""Sliding windows and grouped sums of products, for both references.

Shapes: N pictures, C channels, H rows, W columns; G groups of channels; O output channels of one group; X inputs of
one output (channels of the group times K·K); P output pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from protocol.architecture import Kind, Layer

Values = npt.NDArray[Any]


def maxpool(layer: Layer, x: Values) -> Values:
    """Activations before a max pooling are not negative, so padding with 0 never wins over a pixel."""
    return _windows(layer, x, 0).max(axis=(4, 5))


def patches(layer: Layer, x: Values, pad: int = 0) -> Values:
    """Im2col: what each output pixel sees, [N, G, P, X]."""
    windows = _windows(layer, x, pad)
    count, channels, height, width = windows.shape[:4]
    grouped = windows.reshape(count, layer.groups, channels // layer.groups, height, width, *windows.shape[4:])
    return grouped.transpose(0, 1, 3, 4, 2, 5, 6).reshape(count, layer.groups, height * width, -1)


def columns(layer: Layer, weight_OX: Values) -> Values:
    """A weight as [G, X, O], to be multiplied by patches."""
    return weight_OX.reshape(layer.groups, len(weight_OX) // layer.groups, -1).transpose(0, 2, 1)


def planes(layer: Layer, sums_NGPO: Values) -> Values:
    """Sums as [N, C, H, W]."""
    return sums_NGPO.transpose(0, 1, 3, 2).reshape(len(sums_NGPO), *layer.out_shape)


def per_channel(values_C: Values) -> Values:
    """[C] to [C, 1, 1]."""
    return values_C.reshape(-1, 1, 1)


def patch_elements(layer: Layer) -> int:
    """Values of one picture's patches."""
    if layer.kind not in {Kind.CONV, Kind.MAXPOOL}:
        return 1
    return layer.in_shape[0] * layer.kernel**2 * layer.out_shape[1] * layer.out_shape[2]


def _windows(layer: Layer, x: Values, pad: int) -> Values:
    edge = (layer.padding, layer.padding)
    padded = np.pad(x, ((0, 0), (0, 0), edge, edge), constant_values=pad)
    every = sliding_window_view(padded, (layer.kernel, layer.kernel), axis=(2, 3))
    return every[:, :, :: layer.stride, :: layer.stride]
