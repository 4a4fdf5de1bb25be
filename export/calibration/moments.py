"""Moments for a quantized layer, such that what it normalises keeps the mean and deviation of full precision.

Quantized weights and inputs shift and stretch a layer's sums v. With m, s the mean and deviation of the float network's
sums over the calibration pictures and m', s' those of the quantized network's, a normalisation by μ, σ becomes one by

    σ' = σ · s'/s          μ' = m' − (m − μ) · s'/s

so that (v' − μ')/σ' has over those pictures the mean and deviation of (v − μ)/σ. This corrects biases as M. Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, arXiv 1906.04721, section 4.2
do from data, and deviations as well, which matter at few bits.

Why not just m' and s', as devices of a fleet measure them: those pool thousands of pictures of all devices, while here
are a few hundred. What chance made of them is in m and m' alike, and so cancels; and where nothing is quantized,
nothing changes.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from protocol.architecture import NORM_EPSILON
from protocol.precision import Float32

Float64 = npt.NDArray[np.float64]

MAX_STRETCH: Final = 1e3
"""Of a deviation: a channel that hardly moved before tells nothing about how far it should."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of a layer's sums over pictures and pixels, float64[O] each."""

    mean_O: Float64
    variance_O: Float64


def measured(sums_NOHW: npt.NDArray[Any]) -> Moments:
    """The moments of a layer's sums."""
    axes = (0, 2, 3)
    return Moments(sums_NOHW.mean(axis=axes, dtype=np.float64), sums_NOHW.var(axis=axes, dtype=np.float64))


def matched(mean_O: Float32, variance_O: Float32, before: Moments, after: Moments) -> tuple[Float32, Float32]:
    """μ' and σ'² for a normalisation by μ and σ², float32[O] each.

    Args:
        mean_O: μ, as trained.
        variance_O: σ², as trained; the table's ε is added to it in use.
        before: of the sums at full precision.
        after: of the quantized layer's sums, over the same pictures.
    """
    ratio_O = np.divide(after.variance_O, before.variance_O, where=before.variance_O > 0, out=np.ones(len(mean_O)))
    stretch_O = np.clip(np.sqrt(ratio_O), 1 / MAX_STRETCH, MAX_STRETCH)
    new_mean_O = after.mean_O - (before.mean_O - mean_O) * stretch_O
    new_variance_O = (variance_O.astype(np.float64) + NORM_EPSILON) * stretch_O**2 - NORM_EPSILON
    return new_mean_O.astype(np.float32), np.maximum(new_variance_O, 0).astype(np.float32)
