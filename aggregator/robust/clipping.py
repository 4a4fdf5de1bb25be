"""Updates scaled down to a norm, so that none moves the model further than it.

Z. Sun, P. Kairouz, A. T. Suresh, H. B. McMahan, "Can You Really Backdoor Federated Learning?", 2019, arXiv 1911.07963:
Δ·min(1, τ/‖Δ‖), over all shared tensors together. Alone it has no breakdown point: f of n clipped updates still move
the mean by τ·f/n. Pictures weigh it, but none more than the round's median device: what a device claims is its own
word, and the difference between ten pictures and a hundred is worth keeping. With a median for τ nobody has to know how
large updates are, and it holds while less than half of them lie.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import hypot

import numpy as np

from aggregator.merge.fixed_point import Float64
from protocol.codec.coded import Coded, Dense, RotatedSigns, Signs
from protocol.codec.payload import CodedPayload
from protocol.codec.together import Grouped, Ranged


def norm_of(update: CodedPayload) -> float:
    """Euclidean norm of an update's shared tensors, or a little more; steps and moments are no part of it."""
    shared = [part for part in update.header.layout.delta_segments if not part.profile]
    sides = [update.deltas.part(segment.tensors, segment.place).norm() for segment in shared]
    return hypot(*sides, *(coded.norm() for coded in update.weights.values()))


def whole_norm(update: CodedPayload) -> float:
    """Euclidean norm of all deltas together, steps among them, or a little more; moments are no deltas."""
    return hypot(update.deltas.norm(), *(coded.norm() for coded in update.weights.values()))


def factors(norms_K: Float64, limit: float | None) -> Float64:
    """What each update is multiplied by, float64[K]: 1 without a limit; a limit of 0 is the norms' median."""
    if limit is None or not norms_K.size:
        return np.ones_like(norms_K)
    most = limit or float(np.median(norms_K))
    return np.divide(most, norms_K, out=np.ones_like(norms_K), where=norms_K > most)


def weights(samples: Sequence[int]) -> list[int]:
    """Pictures, none more than their median."""
    most = int(np.median(samples)) if samples else 0
    return [min(count, most) for count in samples]


def scaled(update: CodedPayload, factor: float) -> CodedPayload:
    """The update with all its deltas multiplied, still coded where that is simple; moments stay."""
    if factor == 1:
        return update
    run = update.run and replace(update.run, scales_B=update.run.scales_B * np.float32(factor))
    apart = {name: _scaled(coded, factor) for name, coded in update.apart.items()}
    return replace(update, run=run, apart=apart, deltas=_grouped(update.deltas, factor))


def _scaled(coded: Coded, factor: float) -> Coded:
    match coded:
        case Signs():
            return replace(coded, scale=coded.scale * factor)
        case RotatedSigns():
            return replace(coded, scales_B=coded.scales_B * np.float32(factor))
        case _:
            return Dense(coded.values() * np.float32(factor))


def _grouped(deltas: Grouped, factor: float) -> Grouped:
    if isinstance(deltas, Ranged):
        return replace(deltas, low_S=deltas.low_S * factor, high_S=deltas.high_S * factor)
    return Dense(deltas.values() * np.float32(factor))
