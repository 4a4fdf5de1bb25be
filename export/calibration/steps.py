"""The activation step of least squared error, by search over clips.

Y. Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization", CVPR
Workshops 2020, arXiv 2004.09576, section 3.3: s = argmin ‖v̂(s) − v‖². The trainer does the same in torch
(`edge/training/calibration.py`); a test compares them.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protocol.precision import MIN_STEP, activation_range

Values = npt.NDArray[np.floating[Any]]

FRACTIONS: Final = tuple(0.95**k for k in range(60))
"""From clipping nothing down to a twentieth: at one bit the best step lies near half the largest value."""
SAMPLE: Final = 1 << 16
"""Values to judge a step by: enough that the best one of those tried does not change with more."""


def best_step(values: Values, bits: int, *, signed: bool) -> np.float32:
    """The step for activations of any shape; the largest value is looked for among all of them."""
    low, high = activation_range(bits, signed=signed)
    reach = max(float(values.max()) / high if high else 0.0, float(values.min()) / low if low else 0.0, float(MIN_STEP))
    sample = _sample(values)
    steps = [reach * fraction for fraction in FRACTIONS]
    return np.float32(min(steps, key=lambda step: _error(sample, step, low, high)))


def _sample(values: Values) -> Values:
    """Drawn at random, the same way every time: at even distances one would see the same column of every row."""
    flat = values.reshape(-1)
    return flat if flat.size <= SAMPLE else flat[np.random.default_rng(0).integers(0, flat.size, SAMPLE)]


def _error(sample: Values, step: float, low: int, high: int) -> float:
    restored = np.clip(np.rint(sample / step), low, high) * step
    return float(np.square(restored - sample).mean())
