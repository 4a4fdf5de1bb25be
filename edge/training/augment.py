"""Augmentation that is right for any picture: small shifts. Flips would turn a 2 into none of the ten digits."""

from typing import Final

import numpy as np

from edge.data import Pictures

MAX_SHIFT: Final = 2
"""Pixels. Enough against memorising a few hundred pictures, too little to cut a thing off."""


def shifted(pictures_NCHW: Pictures, rng: np.random.Generator) -> Pictures:
    """Each picture moved by up to `MAX_SHIFT` pixels in both directions; the border repeats its edge."""
    count, _, height, width = pictures_NCHW.shape
    margin = (MAX_SHIFT, MAX_SHIFT)
    padded = np.pad(pictures_NCHW, ((0, 0), (0, 0), margin, margin), mode="edge")
    offsets_N2 = rng.integers(0, 2 * MAX_SHIFT + 1, size=(count, 2))
    pairs = zip(padded, offsets_N2, strict=True)
    return np.stack([picture[:, y : y + height, x : x + width] for picture, (y, x) in pairs])
