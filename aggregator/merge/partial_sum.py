"""The partial sum of a round's updates.

H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient Learning of Deep Networks
from Decentralized Data", AISTATS 2017, arXiv 1602.05629. With deltas Δ_k of devices k that trained on n_k pictures,

    w' = w + Σ n_k·Δ_k / Σ n_k

Floating-point sums depend on their order; integer sums do not (`fixed_point`): any grouping, on any machine, gives the
same bits.

In a vote, weights move by the sign that the majority of pictures has, scaled by the mean of the scales, so that no
device's scale counts for its sign (J. Bernstein, J. Zhao, K. Azizzadenesheli, A. Anandkumar, "signSGD with Majority
Vote is Communication Efficient and Fault Tolerant", ICLR 2019, arXiv 1810.05291).

Shared tensors (weights, gains, offsets, biases) are averaged over all devices, a precision's steps over the devices
that sent its profile; steps are logarithms, so theirs is a geometric mean. Moments are pooled exactly from counts,
sums and squares: with N = Σ n_k pictures,

    μ = Σ n_k·μ_k / N        σ² = Σ n_k·(σ_k² + μ_k²) / N − μ²
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.merge.fixed_point import DELTA_BITS, HEADROOM, MAX_UPDATES, MergeError, bound_of, whole
from aggregator.merge.kernel import Kernel, available, chosen
from aggregator.merge.moment_sum import MomentSum, moment_bound
from aggregator.merge.tensor_sum import TensorSum
from aggregator.merge.weight_sums import WeightSums, bounds_of
from aggregator.model import GlobalModel
from protocol.architecture import Tensors, TensorSpec
from protocol.codec.layout import Layout, Segment, layout_of
from protocol.codec.payload import CodedPayload, Content
from protocol.codec.together import Grouped
from protocol.precision import FP32, Float32, Precision

DELTAS: Final = "deltas of side tensors"
MOMENTS: Final = "moments"


class PartialSum:
    """Updates added up so far; as large after a thousand devices as after a few of each precision.

    Attributes:
        architecture: spec string that every update must name.
        samples: Σ n_k over all devices that sent shared tensors.
        samples_of: the same by precision, over all that sent its profile.
        pictures_of: pictures behind the moments, by precision.
        weights: sums of the weights.
        deltas: of side tensors, by the precision they belong to, empty for shared ones.
        moments: by precision.
    """

    def __init__(self, architecture: str, kernel: Kernel | None = None, *, vote: bool = False) -> None:
        """`kernel` instead of the one that is chosen for the process; `vote` for updates of one bit a weight only."""
        self.architecture = architecture
        self._kernel = kernel or available()[chosen()]
        self.samples = 0
        self.samples_of: dict[str, int] = {}
        self.pictures_of: dict[str, int] = {}
        self.deltas: dict[str, TensorSum] = {}
        self.moments: dict[str, MomentSum] = {}
        self.weights = WeightSums(_shared_layout(architecture).weights, self._kernel, vote=vote)

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
        bounds_S = bounds_of(update, samples)
        deltas, moments = list(_deltas(update, samples)), list(_moments(update))
        if bounds_S.size:  # a calibration has no weights
            self.weights.require_room(bounds_S)
        for delta in deltas:
            _require_room(DELTAS, self.deltas.get(delta.profile), delta.bound)
        for moment in moments:
            _require_room(MOMENTS, self.moments.get(moment.profile), moment.bound)
        if bounds_S.size:
            self.weights.add(update, samples, bounds_S)
        for delta in deltas:
            tensor_sum = self._deltas_of(delta.profile, delta.count)
            tensor_sum.bound += delta.bound
            tensor_sum.add(delta.values, samples)
        for moment in moments:
            moment_sum = self._moments_of(moment.profile, moment.mean_C.size)
            moment_sum.bound += moment.bound
            moment_sum.add(moment.mean_C, moment.variance_C, header.pictures)
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
        self.weights.require_room(other.weights.bounds_S)
        for profile, tensor_sum in other.deltas.items():
            _require_room(DELTAS, self.deltas.get(profile), tensor_sum.bound)
        for profile, moment_sum in other.moments.items():
            _require_room(MOMENTS, self.moments.get(profile), moment_sum.bound)
        self.weights.merge(other.weights)
        for profile, tensor_sum in list(other.deltas.items()):
            self._deltas_of(profile, tensor_sum.count).merge(tensor_sum)
        for profile, moment_sum in list(other.moments.items()):
            self._moments_of(profile, moment_sum.count).merge(moment_sum)
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
        shared = self._shared(base) if self.samples else base.shared
        trained = {name: self._profile(base, name) for name in self.samples_of}
        return GlobalModel(base.architecture, shared, {**base.profiles, **trained})

    def _shared(self, base: GlobalModel) -> Tensors:
        layout = _shared_layout(self.architecture)
        moved = self._moved_together(base.shared, layout.delta_segments[0].specs, "", self.samples)
        moved |= self.weights.moved(base.shared, self.samples)
        return {name: moved[name] for name in base.shared}

    def _profile(self, base: GlobalModel, name: str) -> Tensors:
        profile = dict(base.with_profile(Precision.parse(name)).profiles[name])
        layout = layout_of(self.architecture, name, whole=False, shared=False)
        for segment in layout.delta_segments:
            profile |= self._moved_together(profile, segment.specs, name, self.samples_of[name])
        if self.pictures_of[name]:
            for segment in layout.absolute_segments:
                profile |= self._pooled(segment, name)
        return profile

    def _moved_together(self, base: Tensors, specs: Sequence[TensorSpec], profile: str, samples: int) -> Tensors:
        base_N = np.concatenate([base[spec.name].reshape(-1) for spec in specs])
        moved_N, total_N = np.empty_like(base_N), self.deltas[profile].settled().astype(np.float64)
        self._kernel.move(moved_N, base_N, total_N, samples * 2.0**DELTA_BITS)
        return parted(specs, moved_N)

    def _pooled(self, segment: Segment, precision: str) -> Tensors:
        mean_C, variance_C = self.moments[precision].pooled(self.pictures_of[precision])
        moments_N = np.empty(2 * mean_C.size, dtype=np.float32)
        mean_at, variance_at = segment.moments
        moments_N[mean_at], moments_N[variance_at] = mean_C, variance_C
        return parted(segment.specs, moments_N)

    def _deltas_of(self, profile: str, count: int) -> TensorSum:
        if profile not in self.deltas:
            self.deltas[profile] = TensorSum(count, self._kernel)
        return self.deltas[profile]

    def _moments_of(self, profile: str, count: int) -> MomentSum:
        if profile not in self.moments:
            self.moments[profile] = MomentSum(count, self._kernel)
        return self.moments[profile]

    def _require(self, architecture: str) -> None:
        if architecture != self.architecture:
            raise MergeError(f"update of {architecture}: expected {self.architecture}")


def _require_room(name: str, sum_: TensorSum | MomentSum | None, bound: int) -> None:
    total = bound + (sum_.bound if sum_ is not None else 0)
    if total > HEADROOM:
        raise MergeError(f"tensor {name}: sums of up to {total} do not fit 64 bits, expected at most {HEADROOM}")


def check_headroom(update: CodedPayload, samples: int) -> None:
    """Check that `MAX_UPDATES` updates like this one could be added up.

    Raises:
        MergeError: they could not; the message names the tensor.
    """
    most = HEADROOM // MAX_UPDATES
    bounds_S = bounds_of(update, samples)
    if (bounds_S > most).any():
        index = int((bounds_S > most).argmax())
        raise _no_room(update.header.layout.weights[index].name, int(bounds_S[index]), samples)
    for delta in _deltas(update, samples):
        if delta.bound > most:
            raise _no_room(DELTAS, delta.bound, samples)
    for moment in _moments(update):
        if moment.bound > most:
            raise _no_room(MOMENTS, moment.bound, update.header.pictures)


def _no_room(name: str, bound: int, weight: int) -> MergeError:
    return MergeError(
        f"tensor {name}: {bound / weight:g} fixed-point units × weight {weight} leaves no room for {MAX_UPDATES} such"
        " updates in 64 bits"
    )


@dataclass(frozen=True, slots=True)
class _Deltas:
    """All side tensors of a profile, or the shared ones, together, and how far they can move their sums."""

    profile: str
    count: int
    values: Grouped
    bound: int


@dataclass(frozen=True, slots=True)
class _Moments:
    """All moments of a profile together, and how far they can move their sums."""

    profile: str
    mean_C: Float32
    variance_C: Float32
    bound: int


def _deltas(update: CodedPayload, samples: int) -> Iterator[_Deltas]:
    for segment in update.header.layout.delta_segments:
        values, count = update.deltas.part(segment.tensors, segment.place), segment.place.stop - segment.place.start
        yield _Deltas(segment.profile, count, values, bound_of(DELTAS, whole(values.peak()), samples))


def _moments(update: CodedPayload) -> Iterator[_Moments]:
    pictures = update.header.pictures
    for segment in update.header.layout.absolute_segments if pictures else ():
        mean_C, variance_C = (update.absolutes_N[segment.place].take(at) for at in segment.moments)
        yield _Moments(segment.profile, mean_C, variance_C, moment_bound(mean_C, variance_C, pictures))


def _shared_layout(architecture: str) -> Layout:
    return layout_of(architecture, str(FP32), whole=False, shared=True)


def parted(specs: Sequence[TensorSpec], values_N: Float32) -> Tensors:
    """Tensors that lie one after the other, by their names within their profile."""
    ends = np.cumsum([spec.size for spec in specs])[:-1]
    parts = np.split(values_N, ends)
    return {spec.plain_name: part.reshape(spec.shape) for spec, part in zip(specs, parts, strict=True)}


def _counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
