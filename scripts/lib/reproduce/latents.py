"""What can be read from a final model's weights alone: levels, kurtosis, and the same model with other steps."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from aggregator.model import GlobalModel
from protocol.architecture import Architecture, Kind, Layer, Role
from protocol.precision import Float32, Precision, max_code
from protocol.weights import coded_weight, latent_weight

Counts = dict[str, int]
"""Number of weights by level; a level is a decimal from −1 to 1, as JSON keeps keys."""

BINS = 64
"""Of the histogram of a weight that is not quantized."""


def convolutions(network: Architecture) -> list[Layer]:
    """Every convolution of the table."""
    return [layer for layer in network.layers if layer.kind is Kind.CONV]


def hidden(network: Architecture) -> list[Layer]:
    """The convolutions that are not pinned at 8 bits."""
    return [layer for layer in convolutions(network) if not layer.pinned]


def level_counts(model: GlobalModel, precision: Precision) -> dict[str, Counts]:
    """How many weights of each convolution lie at each level, in units of the largest code or of the largest weight."""
    tensors = model.tensors(precision)
    counts = {}
    for layer in convolutions(model.network):
        bits = precision.bits_of(pinned=layer.pinned)
        if bits <= 8:
            codes_OX = coded_weight(model.network, layer, precision, tensors).codes_OX
            counts[layer.name] = _counted(codes_OX.astype(np.float32) / np.float32(max_code(bits)))
        else:
            counts[layer.name] = _binned(latent_weight(model.network, layer, tensors))
    return counts


def most_levels(model: GlobalModel, precision: Precision) -> int:
    """The largest number of distinct codes in one channel of any hidden convolution, for 1 to 8 weight bits."""
    tensors = model.tensors(precision)
    codes = (coded_weight(model.network, layer, precision, tensors).codes_OX for layer in hidden(model.network))
    return max(len(np.unique(channel_X)) for codes_OX in codes for channel_X in codes_OX)


def kurtosis(values: Float32) -> float:
    """The fourth standardized moment of all values: 1.8 for a uniform law, 3 for a bell curve."""
    centred = values.astype(np.float64) - values.mean(dtype=np.float64)
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2)


def kurtoses(model: GlobalModel) -> dict[str, float]:
    """Kurtosis of the latent weight of every hidden convolution, by layer."""
    return {layer.name: kurtosis(model.shared[f"{layer.name}.{Role.WEIGHT}"]) for layer in hidden(model.network)}


def times(factor: float) -> Callable[[Float32], Float32]:
    """On logarithms of steps: every step `factor` times as large."""
    return lambda log_step_O: (log_step_O + np.float32(np.log(factor))).astype(np.float32)


def power_of_two(log_step_O: Float32) -> Float32:
    """On logarithms of steps: every step at the nearest power of two, nearest in the logarithm."""
    return (np.rint(log_step_O / np.log(2.0)) * np.log(2.0)).astype(np.float32)


def with_steps(model: GlobalModel, precision: Precision, change: Callable[[Float32], Float32]) -> GlobalModel:
    """The model with the weight steps of its hidden convolutions changed at one precision, and nothing else."""
    profile = dict(model.with_profile(precision).profiles[str(precision)])
    for layer in hidden(model.network):
        name = f"{layer.name}.{Role.WEIGHT_LOG_STEP}"
        profile[name] = change(profile[name])
    return replace(model, profiles={**model.profiles, str(precision): profile})


def only(model: GlobalModel, precision: Precision) -> GlobalModel:
    """The model with the profile of one precision, so that every other is derived from it, uncalibrated."""
    return replace(model, profiles={str(precision): model.profiles[str(precision)]})


def _counted(levels: Float32) -> Counts:
    values, counts = np.unique(levels, return_counts=True)
    return {f"{value:.6g}": int(count) for value, count in zip(values, counts, strict=True)}


def _binned(weight: Float32) -> Counts:
    reach = max(float(np.abs(weight).max()), float(np.finfo(np.float32).tiny))
    counts, edges = np.histogram(weight / reach, BINS, (-1.0, 1.0))
    return {f"{(low + high) / 2:.6g}": int(count) for low, high, count in zip(edges, edges[1:], counts, strict=False)}
