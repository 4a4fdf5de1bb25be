"""First tensors: what a fleet starts from, and what a precision starts from that the fleet has not trained yet.

Weights as in K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers", ICCV 2015, arXiv 1502.01852: normal
with variance 2/fan_in. Normalisation starts as the identity.
"""

from math import log, prod, sqrt
from typing import Final

import numpy as np

from protocol.architecture import PROFILE, Architecture, Role, Tensors, TensorSpec
from protocol.precision import Float32, Precision, activation_range, initial_step

INITIAL_REACH: Final = 6.0
"""Largest activation the first steps can represent: a normalised activation rarely lies six deviations out."""


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
    specs = architecture.tensors(precision)
    shared = {spec.name: _fresh(spec, rng) for spec in specs if spec.role not in PROFILE}
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


def _fresh(spec: TensorSpec, rng: np.random.Generator) -> Float32:
    if spec.role is Role.WEIGHT:
        deviation = sqrt(2.0 / prod(spec.shape[1:]))
        return (rng.standard_normal(spec.shape) * deviation).astype(np.float32)
    return np.full(spec.shape, 1.0 if spec.role is Role.GAMMA else 0.0, dtype=np.float32)


def _profiled(
    architecture: Architecture, precision: Precision, spec: TensorSpec, shared: Tensors, like: Tensors
) -> Float32:
    if spec.role is Role.WEIGHT_LOG_STEP:
        bits = precision.bits_of(pinned=architecture.by_name[spec.owner].pinned)
        return np.log(initial_step(shared[f"{spec.owner}.{Role.WEIGHT}"], bits))
    if spec.name in like:
        return like[spec.name].copy()
    if spec.role is Role.ACTIVATION_LOG_STEP:
        _, top = activation_range(architecture.activation_bits(spec.owner, precision), signed=False)
        return np.full(spec.shape, log(INITIAL_REACH / top), dtype=np.float32)
    return np.full(spec.shape, 1.0 if spec.role is Role.VARIANCE else 0.0, dtype=np.float32)
