"""Pictures brought to the size and channels that a network reads."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge.data.dataset import DataError, Pictures
from protocol.architecture import Shape

MAX_PADDING: Final = 4
"""Pixels. A picture this little too small, such as 28×28 for 32×32, gets a border instead of being blurred."""

_MODES: Final = {1: "L", 3: "RGB"}


def mode_for(input_shape: Shape) -> str:
    """Pillow's name for the channels of a network's input.

    Raises:
        DataError: it is neither grey nor colour.
    """
    if input_shape[0] not in _MODES:
        raise DataError(f"network input of {input_shape[0]} channels: pictures have 1 (grey) or 3 (RGB)")
    return _MODES[input_shape[0]]


def fit_picture(picture: Image.Image, input_shape: Shape) -> npt.NDArray[np.uint8]:
    """One picture as uint8[C, H, W]; its aspect gives way to the network's.

    Bicubic, which Pillow widens to the area that one new pixel covers, so that shrinking does not alias.
    """
    _, height, width = input_shape
    converted = _eight_bits(picture).convert(mode_for(input_shape))
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def fit_array(pictures_NCHW: Pictures, input_shape: Shape) -> Pictures:
    """All pictures of an array as uint8[N, C, H, W]: bordered where nearly right, resized elsewhere.

    Raises:
        DataError: their channels cannot be converted.
    """
    channels, height, width = pictures_NCHW.shape[1:]
    missing_H, missing_W = input_shape[1] - height, input_shape[2] - width
    if channels == input_shape[0] and 0 <= missing_H <= MAX_PADDING and 0 <= missing_W <= MAX_PADDING:
        return np.pad(pictures_NCHW, ((0, 0), (0, 0), _halves(missing_H), _halves(missing_W)), mode="edge")
    if channels not in _MODES:
        raise DataError(f"pictures of shape {(channels, height, width)}: expected {input_shape}, or 1 or 3 channels")
    images = (Image.fromarray(_squeezed(picture)) for picture in pictures_NCHW)
    return np.stack([fit_picture(image, input_shape) for image in images])


def _halves(missing: int) -> tuple[int, int]:
    return missing // 2, missing - missing // 2


def _squeezed(picture_CHW: Pictures) -> Pictures:
    return picture_CHW[0] if picture_CHW.shape[0] == 1 else np.ascontiguousarray(picture_CHW.transpose(1, 2, 0))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit grey off at 255 when it converts; this keeps the upper eight bits instead."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 0xFFFF) >> 8).astype(np.uint8))
