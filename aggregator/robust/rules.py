"""Rules that settle a round although some of its updates lie. n updates, of which at most f are made by an attacker.

    median, trimmed     D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards
                        Optimal Statistical Rates", ICML 2018, arXiv 1803.01498: every coordinate by itself
    krum                P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
                        Byzantine Tolerant Gradient Descent", NIPS 2017: the update nearest to its neighbours
    multi-krum          the mean of the best n − f − 2 (G. Damaskinos et al., "AggregaThor", MLSys 2019)

    rule         holds while          costs
    median       f < n/2              reads every value; keeps least of what honest devices disagree about
    trimmed:β    f ≤ β·n, β < ½       reads every value; the mean of n − 2βn values is nearer to the plain mean
    krum:f       n ≥ 2f + 3           n² distances; learns from one device a round
    multi-krum:f n ≥ 2f + 3           n² distances

None of them counts pictures: how many a device has is its own word, and one that claims millions would outvote all.
"""

from dataclasses import dataclass
from math import floor
from typing import Final, Protocol

import numpy as np

from aggregator.merge import MergeError
from aggregator.merge.fixed_point import Float64
from protocol.precision import Float32

_NEARLY: Final = 1e-9
"""0.3 · 10 is a little off 3 in floating point."""


class Coordinates(Protocol):
    """A rule for every coordinate by itself."""

    def settle(self, values_BK: Float32 | Float64) -> Float64:
        """Of K values of B coordinates, each settled, float64[B]; equal sets of values give equal bits."""
        ...


class Selection(Protocol):
    """A rule that believes some updates wholly, and the others not at all."""

    def scores(self, squares_KK: Float64) -> Float64:
        """How far each of K updates lies from its neighbours, float64[K], of squared distances.

        Raises:
            MergeError: too few updates for the rule to hold.
        """
        ...

    def chosen(self, scores_K: Float64) -> list[int]:
        """The updates that are believed, in rising order."""
        ...


@dataclass(frozen=True, slots=True)
class Median:
    """The middle value, or the mean of the middle two."""

    def settle(self, values_BK: Float32 | Float64) -> Float64:
        """Settle B coordinates."""
        return _middle(values_BK, (values_BK.shape[1] - 1) // 2)


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """The mean without the ⌊β·K⌋ largest and as many smallest."""

    share: float

    def settle(self, values_BK: Float32 | Float64) -> Float64:
        """Settle B coordinates."""
        return _middle(values_BK, count_of(self.share, values_BK.shape[1]))


def _middle(values_BK: Float32 | Float64, cut: int) -> Float64:
    """The mean of what is left when so many are cut at both ends; in order of size, so that equal sets add up alike."""
    count = values_BK.shape[1]
    sorted_BK = np.sort(values_BK, axis=1)
    return sorted_BK[:, cut : count - cut].sum(axis=1, dtype=np.float64) / (count - 2 * cut)


@dataclass(frozen=True, slots=True)
class Krum:
    """The update whose n − f − 2 nearest neighbours are nearest, or several of them.

    Attributes:
        attackers: f, as a number of updates, or a share of them, of which the round may hold no more than it can bear.
        several: whether the best n − f − 2 are believed, else the best one.
    """

    attackers: float
    several: bool = False

    def scores(self, squares_KK: Float64) -> Float64:
        """Sums of squared distances to the n − f − 2 nearest others.

        Raises:
            MergeError: fewer than 2f + 3 updates.
        """
        count = len(squares_KK)
        neighbours = count - self._bearable(count) - 2
        others_KK = squares_KK[~np.eye(count, dtype=bool)].reshape(count, count - 1)
        return np.sort(others_KK, axis=1)[:, :neighbours].sum(axis=1)

    def chosen(self, scores_K: Float64) -> list[int]:
        """The best; of equal ones the first."""
        count = len(scores_K)
        wanted = count - self._bearable(count) - 2 if self.several else 1
        return sorted(np.argsort(scores_K, kind="stable")[:wanted].tolist())

    def _bearable(self, count: int) -> int:
        share = self.attackers < 1
        few = min(count_of(self.attackers, count), (count - 3) // 2) if share else int(self.attackers)
        needed = 2 * max(few, 0) + 3
        if count < needed:
            raise MergeError(f"{'multi-' if self.several else ''}krum of {count} updates: expected at least {needed}")
        return few


def count_of(share: float, count: int) -> int:
    """So large a share of `count`, rounded down."""
    return floor(share * count + _NEARLY)
