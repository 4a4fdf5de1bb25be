"""Federated averaging in integers, so that the sum does not depend on who was added when.

H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, arXiv 1602.05629. With deltas Δ_k of devices k that trained on n_k pictures,

    w' = w + Σ n_k·Δ_k / Σ n_k

Floating-point sums depend on their order; integer sums do not. Every value becomes rint(x·2^F) once, on arrival, and
from then on there are only int64 additions: any grouping, on any machine, gives the same bits.

Shared tensors (weights, gains, offsets, biases) are averaged over all devices, a precision's steps over the devices
that sent its profile; steps are logarithms, so theirs is a geometric mean. Moments are pooled exactly from counts,
sums and squares: with N = Σ n_k pictures,

    μ = Σ n_k·μ_k / N        σ² = Σ n_k·(σ_k² + μ_k²) / N − μ²
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from aggregator.model import GlobalModel, profile_specs, shared_specs
from protocol.architecture import MOMENTS, Role, Tensors
from protocol.codec.payload import Content, Header
from protocol.precision import Float32, Precision

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

DELTA_BITS: Final = 32
"""Fraction bits of deltas: errors below 2⁻³³ a value, room for Σ n·|Δ| < 2³¹."""
MOMENT_BITS: Final = 20
"""Fraction bits of moments: finer than the 11 significant bits they travel with, room for Σ n·(σ² + μ²) < 2⁴³."""
HEADROOM: Final = (1 << 63) - 1
MAX_UPDATES: Final = 1024
"""Updates in one round. Each is admitted only if this many like it fit, so that no accepted one is ever in the way;
larger fleets merge in leaves."""


class MergeError(Exception):
    """Updates that cannot be added up; nothing was added."""


class _Term(NamedTuple):
    """One addend: which sum it belongs to (precision, empty for shared, and tensor), and rint(value·2^F) · weight."""

    key: tuple[str, str]
    scaled_X: Float64
    weight: int

    @property
    def bound(self) -> int:
        """The largest magnitude, in Python's unbounded integers.

        Raises:
            MergeError: it does not fit 64 bits, or is not finite.
        """
        peak = float(np.abs(self.scaled_X).max())
        if not peak * self.weight < 2.0**63:
            raise MergeError(f"tensor {self.key[1]}: {peak:g} fixed-point units × {self.weight} does not fit 64 bits")
        return int(peak) * self.weight


@dataclass(frozen=True, slots=True)
class _Sum:
    """Σ of terms, elementwise, and a bound on the magnitude of every partial sum."""

    sum_X: Int64
    bound: int


@dataclass(frozen=True)
class PartialSum:
    """Updates added up so far; as large after a thousand devices as after one of each precision.

    Attributes:
        architecture: spec string that every update must name.
        samples: Σ n_k over all devices that sent shared tensors.
        samples_of: the same by precision, over all that sent its profile.
        pictures_of: pictures behind the moments, by precision.
        sums: by precision (empty for shared tensors) and tensor.
    """

    architecture: str
    samples: int = 0
    samples_of: Mapping[str, int] = field(default_factory=dict)
    pictures_of: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[tuple[str, str], _Sum] = field(default_factory=dict)

    def add(self, header: Header, tensors: Tensors, samples: int) -> Self:
        """This sum and one update.

        Args:
            header: of the update's payload; its pictures weigh the moments.
            tensors: float32 deltas, and moments as they are.
            samples: n_k, the pictures it was trained on.

        Raises:
            MergeError: another architecture, or the sums might not fit 64 bits.
        """
        sums = {}
        for term in _terms(header, tensors, samples):
            bound = term.bound
            sums[term.key] = _Sum(term.scaled_X.astype(np.int64) * term.weight, bound)
        names = [str(precision) for precision in header.precisions]
        own = dict.fromkeys(names, samples), dict.fromkeys(names, header.pictures)
        shared = 0 if header.content is Content.PROFILES else samples
        return self.merge(type(self)(header.architecture, shared, *own, sums))

    def merge(self, other: Self) -> Self:
        """Both sums together, in either order.

        Raises:
            MergeError: another architecture, or the sums might not fit 64 bits.
        """
        if other.architecture != self.architecture:
            raise MergeError(f"update of {other.architecture}: expected {self.architecture}")
        return type(self)(
            self.architecture,
            self.samples + other.samples,
            _counts(self.samples_of, other.samples_of),
            _counts(self.pictures_of, other.pictures_of),
            {**self.sums, **{key: _plus(key, self.sums.get(key), addend) for key, addend in other.sums.items()}},
        )

    def finish(self, base: GlobalModel) -> GlobalModel:
        """The merged model: `base` plus the averages. What nobody sent stays as it is.

        Raises:
            MergeError: nothing was added.
        """
        if not self.samples_of:
            raise MergeError("no update to merge: expected at least one")
        shared = (
            base.shared
            if not self.samples
            else {
                spec.name: self._moved(base.shared[spec.name], ("", spec.name), self.samples)
                for spec in shared_specs(base.network)
            }
        )
        trained = {name: self._profile(base, name) for name in self.samples_of}
        return GlobalModel(base.architecture, shared, {**base.profiles, **trained})

    def _profile(self, base: GlobalModel, name: str) -> Tensors:
        precision = Precision.parse(name)
        profile = dict(base.with_profile(precision).profiles[name])
        for spec in profile_specs(base.network, precision):
            if spec.role not in MOMENTS:
                profile[spec.name] = self._moved(profile[spec.name], (name, spec.name), self.samples_of[name])
            elif spec.role is Role.VARIANCE and self.pictures_of[name]:
                profile |= self._pooled(name, spec.owner)
        return profile

    def _moved(self, base_X: Float32, key: tuple[str, str], samples: int) -> Float32:
        return (base_X + self.sums[key].sum_X / (samples * 2.0**DELTA_BITS)).astype(np.float32)

    def _pooled(self, precision: str, layer: str) -> Tensors:
        unit = self.pictures_of[precision] * 2.0**MOMENT_BITS
        names = f"{layer}.{Role.MEAN}", f"{layer}.{Role.VARIANCE}"
        mean_C, square_C = (self.sums[precision, name].sum_X / unit for name in names)
        variance_C = np.maximum(square_C - mean_C**2, 0.0)
        return {names[0]: mean_C.astype(np.float32), names[1]: variance_C.astype(np.float32)}


def check_headroom(header: Header, tensors: Tensors, samples: int) -> None:
    """Check that `MAX_UPDATES` updates like this one could be added up.

    Raises:
        MergeError: they could not; the message names the tensor.
    """
    for term in _terms(header, tensors, samples):
        if term.bound * MAX_UPDATES > HEADROOM:
            largest = float(np.abs(term.scaled_X).max())
            raise MergeError(
                f"tensor {term.key[1]}: {largest:g} fixed-point units × weight {term.weight} leaves no room for"
                f" {MAX_UPDATES} such updates in 64 bits"
            )


def _terms(header: Header, tensors: Tensors, samples: int) -> Iterator[_Term]:
    for spec in header.specs:
        key = spec.profile, spec.plain_name
        if spec.role not in MOMENTS:
            yield _Term(key, _scaled(tensors[spec.name], DELTA_BITS), samples)
        elif spec.role is Role.VARIANCE and header.pictures:
            mean_name = spec.name.removesuffix(Role.VARIANCE) + Role.MEAN
            mean_C = _scaled(tensors[mean_name], MOMENT_BITS)
            # The square is of the rounded mean: then what one device sent comes back as its own variance.
            square_C = _scaled(tensors[spec.name] + np.ldexp(mean_C, -MOMENT_BITS) ** 2, MOMENT_BITS)
            yield _Term((spec.profile, f"{spec.owner}.{Role.MEAN}"), mean_C, header.pictures)
            yield _Term(key, square_C, header.pictures)


def _scaled(values_X: Float32 | Float64, bits: int) -> Float64:
    return np.rint(np.ldexp(values_X.astype(np.float64), bits))


def _plus(key: tuple[str, str], one: _Sum | None, other: _Sum) -> _Sum:
    if one is None:
        return other
    bound = one.bound + other.bound
    if bound > HEADROOM:
        raise MergeError(f"tensor {key[1]}: sums of up to {bound} do not fit 64 bits, expected at most {HEADROOM}")
    return _Sum(one.sum_X + other.sum_X, bound)


def _counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def plain_mean(base_X: Float32, deltas: Sequence[Float32], samples: Sequence[int]) -> Float64:
    """Federated averaging as the paper writes it, which `PartialSum` must agree with."""
    weights = np.array(samples, dtype=np.float64) / sum(samples)
    return base_X + sum(weight * delta.astype(np.float64) for weight, delta in zip(weights, deltas, strict=True))


def plain_moments(
    means: Sequence[Float32], variances: Sequence[Float32], pictures: Sequence[int]
) -> tuple[Float64, Float64]:
    """Mean and variance of all pictures together, which `PartialSum` must agree with."""
    mean = np.average(np.array(means, dtype=np.float64), axis=0, weights=pictures)
    spread = np.array(variances, dtype=np.float64) + (np.array(means, dtype=np.float64) - mean) ** 2
    return mean, np.average(spread, axis=0, weights=pictures)
