"""The partial sum of a round's updates.

H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, arXiv 1602.05629. With deltas Δ_k of devices k that trained on n_k pictures,

    w' = w + Σ n_k·Δ_k / Σ n_k

Floating-point sums depend on their order; integer sums do not (`fixed_point`): any grouping, on any machine, gives the
same bits.

Shared tensors (weights, gains, offsets, biases) are averaged over all devices, a precision's steps over the devices
that sent its profile; steps are logarithms, so theirs is a geometric mean. Moments are pooled exactly from counts,
sums and squares: with N = Σ n_k pictures,

    μ = Σ n_k·μ_k / N        σ² = Σ n_k·(σ_k² + μ_k²) / N − μ²
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from aggregator.merge.fixed_point import (
    DELTA_BITS,
    HEADROOM,
    MAX_UPDATES,
    MOMENT_BITS,
    Float64,
    MergeError,
    bound_of,
    scaled,
    whole,
)
from aggregator.merge.tensor_sum import TensorSum
from aggregator.model import GlobalModel, profile_specs, shared_specs
from protocol.architecture import MOMENTS, Role, Tensors, TensorSpec
from protocol.codec.coded import Coded, RotatedSigns, Signs
from protocol.codec.payload import CodedPayload, Content
from protocol.precision import Float32, Precision

Key = tuple[str, str]
"""Which sum: the precision it belongs to, empty for shared tensors, and the tensor."""


class PartialSum:
    """Updates added up so far; as large after a thousand devices as after a few of each precision.

    Attributes:
        architecture: spec string that every update must name.
        samples: Σ n_k over all devices that sent shared tensors.
        samples_of: the same by precision, over all that sent its profile.
        pictures_of: pictures behind the moments, by precision.
        sums: of each tensor.
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.samples = 0
        self.samples_of: dict[str, int] = {}
        self.pictures_of: dict[str, int] = {}
        self.sums: dict[Key, TensorSum] = {}

    def add(self, update: CodedPayload, samples: int) -> None:
        """Add one update.

        Args:
            update: deltas, and moments as they are; its pictures weigh the moments.
            samples: n_k, the pictures it was trained on.

        Raises:
            MergeError: another architecture, or the sums might not fit 64 bits; nothing was added.
        """
        header = update.header
        self._require(header.architecture)
        terms = list(_terms(update, samples))
        for term in terms:
            self._require_room(term.key, term.bound)
        for term in terms:
            tensor_sum = self.sums.setdefault(term.key, TensorSum(term.size))
            tensor_sum.bound += term.bound
            if isinstance(term.values, np.ndarray):
                tensor_sum.add_whole(term.values, term.weight)
            else:
                tensor_sum.add(term.values, term.weight)
        self.samples += 0 if header.content is Content.PROFILES else samples
        for name in map(str, header.precisions):
            self.samples_of[name] = self.samples_of.get(name, 0) + samples
            self.pictures_of[name] = self.pictures_of.get(name, 0) + header.pictures

    def merge(self, other: "PartialSum") -> None:
        """Add all that was added to another one.

        Raises:
            MergeError: another architecture, or the sums might not fit 64 bits; nothing was added.
        """
        self._require(other.architecture)
        for key, tensor_sum in other.sums.items():
            self._require_room(key, tensor_sum.bound)
        for key, tensor_sum in list(other.sums.items()):
            self.sums.setdefault(key, TensorSum(tensor_sum.count)).merge(tensor_sum)
        self.samples += other.samples
        self.samples_of = _counts(self.samples_of, other.samples_of)
        self.pictures_of = _counts(self.pictures_of, other.pictures_of)

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

    def _moved(self, base_X: Float32, key: Key, samples: int) -> Float32:
        moved_N = self.sums[key].moved(base_X.reshape(-1), samples * 2.0**DELTA_BITS)
        return moved_N.reshape(base_X.shape)

    def _pooled(self, precision: str, layer: str) -> Tensors:
        unit = self.pictures_of[precision] * 2.0**MOMENT_BITS
        names = f"{layer}.{Role.MEAN}", f"{layer}.{Role.VARIANCE}"
        mean_C, square_C = (self.sums[precision, name].settled() / unit for name in names)
        variance_C = np.maximum(square_C - mean_C**2, 0.0)
        return {names[0]: mean_C.astype(np.float32), names[1]: variance_C.astype(np.float32)}

    def _require(self, architecture: str) -> None:
        if architecture != self.architecture:
            raise MergeError(f"update of {architecture}: expected {self.architecture}")

    def _require_room(self, key: Key, bound: int) -> None:
        total = bound + (self.sums[key].bound if key in self.sums else 0)
        if total > HEADROOM:
            raise MergeError(f"tensor {key[1]}: sums of up to {total} do not fit 64 bits, expected at most {HEADROOM}")


def check_headroom(update: CodedPayload, samples: int) -> None:
    """Check that `MAX_UPDATES` updates like this one could be added up.

    Raises:
        MergeError: they could not; the message names the tensor.
    """
    for term in _terms(update, samples):
        if term.bound * MAX_UPDATES > HEADROOM:
            raise MergeError(
                f"tensor {term.key[1]}: {term.bound / term.weight:g} fixed-point units × weight {term.weight} leaves no"
                f" room for {MAX_UPDATES} such updates in 64 bits"
            )


@dataclass(frozen=True, slots=True)
class _Term:
    """One addend: which sum it belongs to, how many values, what they are, their weight, and how far they reach."""

    key: Key
    size: int
    values: Coded | Float64
    weight: int
    bound: int


def _terms(update: CodedPayload, samples: int) -> Iterator[_Term]:
    header, tensors = update.header, update.tensors
    for spec in header.specs:
        if spec.role not in MOMENTS:
            yield _delta(spec, tensors[spec.name], samples)
        elif spec.role is Role.VARIANCE and header.pictures:
            mean_name = spec.name.removesuffix(Role.VARIANCE) + Role.MEAN
            mean_C = scaled(tensors[mean_name].values(), MOMENT_BITS)
            # The square is of the rounded mean: then what one device sent comes back as its own variance.
            square_C = scaled(tensors[spec.name].values() + np.ldexp(mean_C, -MOMENT_BITS) ** 2, MOMENT_BITS)
            for name, whole_C in ((f"{spec.owner}.{Role.MEAN}", mean_C), (spec.plain_name, square_C)):
                bound = bound_of(name, float(np.abs(whole_C).max()), header.pictures)
                yield _Term((spec.profile, name), spec.size, whole_C, header.pictures, bound)


def _delta(spec: TensorSpec, coded: Coded, weight: int) -> _Term:
    peak = whole(_peak(coded))
    bound = bound_of(spec.plain_name, peak, weight)
    return _Term((spec.profile, spec.plain_name), spec.size, coded, weight, bound)


def _peak(coded: Coded) -> float:
    """The largest magnitude of what is added up: of values, or of what they are when rotated."""
    match coded:
        case Signs(scale):
            return float(scale)
        case RotatedSigns(scales_B):
            return float(scales_B.max())
        case _:
            values_N = coded.values()
            return float(np.maximum(values_N.max(), -values_N.min()))


def _counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
