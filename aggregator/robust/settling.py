"""A round merged by a rule that bears liars, reading the journal once from end to end and then in slices.

Memory is that of the model, of one update and of a slice, whatever the number of devices; what does not fit lies in a
`Spool`. Updates are taken in the order of their digests, so that the order in which they came changes no bit.

Shared tensors (weights, gains, offsets, biases) are settled by the rule: coordinate by coordinate, or by whom it
believes, whose updates are then added up exactly (`aggregator.merge`), one vote each. Steps and moments belong to a
precision and are always settled coordinate by coordinate, one vote for each device that sent them. Steps are
logarithms, and the middle of logarithms is the logarithm of the middle. For moments μ_k, σ_k² and a rule R

    μ = R(μ_k)        σ² = R(σ_k² + (μ_k − μ)²)

which is pooling, where R is the mean, and never below zero.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from aggregator.merge import MergeError, PartialSum
from aggregator.merge.fixed_point import Float64
from aggregator.merge.partial_sum import parted
from aggregator.model import GlobalModel
from aggregator.robust import clipping
from aggregator.robust.rules import Coordinates, Selection
from aggregator.robust.spelling import MEAN, Merging
from aggregator.robust.spool import Column, Spool
from protocol.architecture import Tensors
from protocol.codec.coded import Dense
from protocol.codec.layout import Segment, layout_of
from protocol.codec.payload import CodedPayload, Content, read
from protocol.precision import FP32, Float32, Precision

WEIGHT: Final = "weight"
DELTAS: Final = "deltas"
"""Of a profile; those that all share have none."""
MEANS: Final = "means"
VARIANCES: Final = "variances"
SHARED: Final = ""

Fetch = Callable[[str], bytes]
"""A payload by its digest."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted update: what it is called, its payload's digest, and the pictures that it claims."""

    name: str
    digest: str
    samples: int


@dataclass(frozen=True)
class Settled:
    """What a round came to.

    Attributes:
        model: merged.
        distances: by name, how far each update lies from the others, or from what they were settled to; empty where
            nothing shared was sent.
        left_out: names of the updates that a rule did not believe.
        spool_bytes: that lay on disk meanwhile.
    """

    model: GlobalModel
    distances: Mapping[str, float]
    left_out: frozenset[str]
    spool_bytes: int


def settle(
    base: GlobalModel,
    merging: Merging,
    entries: Iterable[Entry],
    fetch: Fetch,
    folder: Path,
    seen: Callable[[CodedPayload], object] = id,
) -> Settled:
    """Merge a round.

    Args:
        base: what devices started from.
        merging: how; not as devices weigh it.
        entries: all accepted updates, in any order.
        fetch: reads payloads; called twice for some.
        folder: on a disk with room for the round's updates.
        seen: is shown every update once.

    Raises:
        MergeError: no update, too few of them for the rule, or one of another network.
        OSError: the disk is full or failing; nothing is left on it.
    """
    ordered = sorted(entries, key=lambda entry: (entry.digest, entry.samples, entry.name))
    if not ordered:
        raise MergeError("no update to merge: expected at least one")
    with Spool(folder) as spool:
        work = _Work(base, merging, ordered, fetch, spool)
        for update in work.read():
            seen(update)
        profiles = {name: work.profile(name) for name in sorted(work.precisions)}
        shared, distances_K, believed = work.shared() if work.sharing else (base.shared, np.zeros(0), [])
        names = [ordered[index].name for index in work.sharing]
        return Settled(
            model=GlobalModel(base.architecture, shared, {**base.profiles, **profiles}),
            distances=dict(zip(names, distances_K.tolist(), strict=True)),
            left_out=frozenset(names) - {names[index] for index in believed},
            spool_bytes=spool.size_bytes,
        )


class _Work:
    """One round while it is merged.

    Attributes:
        precisions: whose profiles were sent.
        sharing: which of the entries sent shared tensors.
    """

    def __init__(
        self, base: GlobalModel, merging: Merging, entries: Sequence[Entry], fetch: Fetch, spool: Spool
    ) -> None:
        self._base, self._merging, self._entries, self._fetch, self._spool = base, merging, entries, fetch, spool
        self._layout = layout_of(base.architecture, str(FP32), whole=False, shared=True)
        self._factors_K: Float64 = np.zeros(0)
        self._norms: list[float] = []
        self.precisions: set[str] = set()
        self.sharing: list[int] = []

    def read(self) -> Iterable[CodedPayload]:
        """Every update once, spooled as far as it is needed again."""
        for index, entry in enumerate(self._entries):
            update = read(self._fetch(entry.digest))
            if update.header.architecture != self._base.architecture:
                raise MergeError(f"update of {update.header.architecture}: expected {self._base.architecture}")
            self.precisions |= set(map(str, update.header.precisions))
            self._keep_profiles(index, update)
            if update.header.content is not Content.PROFILES:
                self.sharing.append(index)
                self._norms.append(clipping.norm_of(update))
                if self._merging.rule != MEAN:
                    self._keep_shared(index, update)
            yield update
        self._factors_K = clipping.factors(np.array(self._norms), self._merging.clip)

    def _keep_shared(self, index: int, update: CodedPayload) -> None:
        weights = update.weights
        for spec in self._layout.weights:
            self._spool.add((WEIGHT, spec.name), index, spec.size, weights[spec.name])

    def _keep_profiles(self, index: int, update: CodedPayload) -> None:
        layout = update.header.layout
        for segment in layout.delta_segments:
            values = update.deltas.part(segment.tensors, segment.place)
            self._spool.add((DELTAS, segment.profile), index, segment.place.stop - segment.place.start, values)
        for segment in layout.absolute_segments if update.header.pictures else ():
            values_N = update.absolutes_N[segment.place]
            for kind, at in zip((MEANS, VARIANCES), segment.moments, strict=True):
                self._spool.add((kind, segment.profile), index, at.size, Dense(values_N.take(at)))

    # --- shared tensors ---

    def shared(self) -> tuple[Tensors, Float64, Sequence[int]]:
        """Settled; how far each update that shares lies off; and which of those are believed."""
        everyone = range(len(self.sharing))
        coordinates, selection = self._merging.coordinates, self._merging.selection
        if coordinates is not None:
            return *self._by_coordinates(coordinates), everyone
        if selection is not None:
            return self._by_selection(selection)
        samples = clipping.weights([self._entries[index].samples for index in self.sharing])
        return self._added(everyone, samples), np.array(self._norms), everyone

    def _by_coordinates(self, rule: Coordinates) -> tuple[Tensors, Float64]:
        squares_K = np.zeros(len(self.sharing))
        moved = {}
        for column, base_N in self._columns():
            moved_N = np.empty_like(base_N)
            for here, values_KB in self._spool.slices(column):
                np.multiply(values_KB, self._factors_K[:, None], out=values_KB, casting="same_kind")
                delta_B = rule.settle(np.ascontiguousarray(values_KB.T))
                moved_N[here] = base_N[here] + delta_B
                np.subtract(values_KB, delta_B, out=values_KB, casting="same_kind")
                squares_K += np.square(values_KB, out=values_KB).sum(axis=1, dtype=np.float64)
            moved[column] = moved_N
        return self._named(moved), np.sqrt(squares_K)

    def _by_selection(self, rule: Selection) -> tuple[Tensors, Float64, list[int]]:
        gram_KK = np.zeros((len(self.sharing), len(self.sharing)))
        for column, _ in self._columns():
            for _, values_KB in self._spool.slices(column):
                wide_KB = values_KB.astype(np.float64)
                gram_KK += wide_KB @ wide_KB.T
        scores_K = rule.scores(squares_of(gram_KK * np.outer(self._factors_K, self._factors_K)))
        chosen = rule.chosen(scores_K)
        return self._added(chosen, [1] * len(chosen)), np.sqrt(scores_K), chosen

    def _added(self, chosen: Sequence[int], weights: Sequence[int]) -> Tensors:
        """The mean of some updates, which are read again, each scaled as it is clipped."""
        total = PartialSum(self._base.architecture)
        for index, weight in zip(chosen, weights, strict=True):
            update = read(self._fetch(self._entries[self.sharing[index]].digest))
            total.add(clipping.scaled(update, float(self._factors_K[index])), weight)
        return total.finish(self._base).shared

    def _columns(self) -> Iterable[tuple[Column, Float32]]:
        """What updates share, with the base's values."""
        for spec in self._layout.weights:
            yield (WEIGHT, spec.name), self._base.shared[spec.name].reshape(-1)
        for segment in self._layout.delta_segments:
            yield (DELTAS, SHARED), _together(self._base.shared, segment)

    def _named(self, moved: Mapping[Column, Float32]) -> Tensors:
        found = {spec.name: moved[WEIGHT, spec.name].reshape(spec.shape) for spec in self._layout.weights}
        for segment in self._layout.delta_segments:
            found |= parted(segment.specs, moved[DELTAS, SHARED])
        return {name: found[name] for name in self._base.shared}

    # --- what belongs to a precision ---

    def profile(self, name: str) -> Tensors:
        """The profile of a precision, settled among those who sent it."""
        rule = self._merging.for_profiles
        profile = dict(self._base.with_profile(Precision.parse(name)).profiles[name])
        layout = layout_of(self._base.architecture, name, whole=False, shared=False)
        for segment in layout.delta_segments:
            moved_N = _together(profile, segment)
            for here, values_KB in self._spool.slices((DELTAS, name)):
                moved_N[here] = moved_N[here] + rule.settle(np.ascontiguousarray(values_KB.T))
            profile |= parted(segment.specs, moved_N)
        for segment in layout.absolute_segments if self._spool.updates((MEANS, name)) else ():
            profile |= parted(segment.specs, self._moments(name, segment, rule))
        return profile

    def _moments(self, name: str, segment: Segment, rule: Coordinates) -> Float32:
        moments_N = np.empty(segment.place.stop - segment.place.start, dtype=np.float32)
        mean_at, variance_at = segment.moments
        slices = zip(self._spool.slices((MEANS, name)), self._spool.slices((VARIANCES, name)), strict=True)
        for (here, means_KB), (_, variances_KB) in slices:
            mean_B = rule.settle(np.ascontiguousarray(means_KB.T, dtype=np.float64))
            spread_KB = variances_KB + np.square(means_KB - mean_B)
            moments_N[mean_at[here]] = mean_B
            moments_N[variance_at[here]] = rule.settle(np.ascontiguousarray(spread_KB.T))
        return moments_N


def squares_of(gram_KK: Float64) -> Float64:
    """Squared distances between K vectors from their inner products; rounding makes none negative."""
    own_K = gram_KK.diagonal()
    return np.maximum(own_K[:, None] + own_K - 2 * gram_KK, 0.0)


def _together(base: Tensors, segment: Segment) -> Float32:
    return np.concatenate([base[spec.plain_name].reshape(-1) for spec in segment.specs])
