"""First tensors: what a fleet starts from, and what a precision starts from that the fleet has not trained yet.

Weights as in K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015, arXiv 1502.01852: normal
with variance 2/fan_in. Normalisation starts as the identity.
"""

from math import log, prod, sqrt
from typing import Final

import numpy as np

from protocol.architecture import PROFILE, Architecture, Role, Tensors, TensorSpec
from protocol.precision import FP32, MAX_WEIGHT_CODE, Float32, Precision, activation_range, fitted_step
from protocol.weights import latent_weight

INITIAL_REACH: Final = 6.0
"""Largest activation the first steps can represent: a normalised activation rarely lies six deviations out."""
INITIAL_SLOPE: Final = 0.25
"""Of a PReLU below zero, as in the paper that introduced it (He et al., arXiv 1502.01852)."""
NESTED_FIT_BITS: Final = 4
"""Nested codes start with the reach that suits this width: 8 bits bear clipping, 2 would not bear a longer reach."""
_ONES: Final = frozenset({Role.GAMMA, Role.VARIANCE})


def initial_tensors(architecture: Architecture, precision: Precision, seed: int) -> Tensors:
    """A fresh model: the shared tensors and the profile of `precision`.

    The shared tensors depend on `seed` alone, not on the precision, and have the same bits on every machine.

    Args:
        architecture: the network's table.
        precision: whose profile to add.
        seed: of the weights, not negative.

    Returns:
        float32 tensors for every name of `architecture.tensors(precision)`.
    """
    rng = np.random.default_rng(seed)
    shared: Tensors = {}
    for spec in architecture.tensors(FP32):
        if spec.role not in PROFILE:
            shared[spec.name] = _fresh(architecture, spec, shared, rng)
    return shared | derive_profile(architecture, precision, shared)


def derive_profile(
    architecture: Architecture, precision: Precision, shared: Tensors, like: Tensors | None = None
) -> Tensors:
    """The profile of a precision that has none yet.

    Weight steps follow from the weights. Moments and activation steps are copied from a neighbouring precision's
    profile as far as it has them, and otherwise start as identity and constant.

    Args:
        architecture: the network's table.
        precision: the precision that lacks a profile.
        shared: the tensors that all precisions share.
        like: the profile of a neighbouring precision, if there is one.

    Returns:
        The profile tensors of `architecture.tensors(precision)`.
    """
    specs = [spec for spec in architecture.tensors(precision) if spec.role in PROFILE]
    return {spec.name: _profiled(architecture, precision, spec, shared, like or {}) for spec in specs}


def _fresh(architecture: Architecture, spec: TensorSpec, shared: Tensors, rng: np.random.Generator) -> Float32:
    if spec.role is Role.WEIGHT:
        deviation = sqrt(2.0 / prod(spec.shape[1:]))
        return (rng.standard_normal(spec.shape) * deviation).astype(np.float32)
    if spec.role is Role.CODE_LOG_STEP:
        reach_O = fitted_step(_latent(architecture, spec.owner, shared), NESTED_FIT_BITS) * (1 << NESTED_FIT_BITS) / 2
        return np.log(reach_O / MAX_WEIGHT_CODE).astype(np.float32)
    if spec.role is Role.SLOPE:
        return np.full(spec.shape, INITIAL_SLOPE, dtype=np.float32)
    return _constant(spec)


def _profiled(
    architecture: Architecture, precision: Precision, spec: TensorSpec, shared: Tensors, like: Tensors
) -> Float32:
    if spec.role is Role.WEIGHT_LOG_STEP:
        bits = precision.bits_of(pinned=architecture.by_name[spec.owner].pinned)
        return np.log(fitted_step(_latent(architecture, spec.owner, shared), bits))
    if spec.role is not Role.WIDTH_LOG_SCALE and spec.name in like and like[spec.name].shape == spec.shape:
        return like[spec.name].copy()
    if spec.role is Role.ACTIVATION_LOG_STEP:
        _, top = activation_range(architecture.activation_bits(spec.owner, precision), signed=False)
        return np.full(spec.shape, log(INITIAL_REACH / top), dtype=np.float32)
    return _constant(spec)


def _constant(spec: TensorSpec) -> Float32:
    return np.full(spec.shape, 1.0 if spec.role in _ONES else 0.0, dtype=np.float32)


def _latent(architecture: Architecture, layer: str, shared: Tensors) -> Float32:
    return latent_weight(architecture, architecture.by_name[layer], shared)
