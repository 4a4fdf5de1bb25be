"""FedZip: the largest values, gathered in a few clusters.

A. Malekijoo et al., "FedZip: A Compression Framework for Communication-Efficient Federated Learning", arXiv
2102.01593: all but a share z of a tensor becomes zero; one-dimensional k-means over the whole tensor, zeros included,
from centroids that are evenly spaced between the minimum and the maximum, with four steps of S. Lloyd's; a value is its
cluster's centroid. The cluster of zero takes most of the kept values in as well.

Code 0 is the cluster of the centroid nearest to zero, the others follow in the order of their centroids.

Layout: k float32 centroids in the order of their codes, then the codes (`golomb`, the paper's differences of positions,
or another coder).
"""

from typing import Final

import numpy as np

from protocol.codec.base import Coder
from protocol.codec.coded import Dense
from protocol.codec.golomb import Golomb
from protocol.codec.sparse import largest
from protocol.precision import Float32
from protocol.reader import Reader

LLOYD_STEPS: Final = 4


class Clusters:
    """k values a tensor."""

    def __init__(self, share: float, clusters: int, coder: Coder | None = None) -> None:
        self._share, self._clusters, self._coder = share, clusters, coder or Golomb()

    def encode(self, values_N: Float32, rng: np.random.Generator, seed: int) -> bytes:  # noqa: ARG002 (deterministic)
        """Centroids, then codes."""
        sparse_N = values_N * largest(values_N, self._share)
        centroids_K = _centroids(sparse_N, self._clusters)
        order_K = np.argsort(np.arange(self._clusters) != np.abs(centroids_K).argmin(), kind="stable")
        codes_N = np.argsort(order_K)[_nearest(sparse_N, centroids_K)].astype(np.uint8)
        return centroids_K[order_K].astype("<f4").tobytes() + self._coder.encode(codes_N, self._clusters)

    def read(self, reader: Reader, count: int, seed: int) -> Dense:  # noqa: ARG002
        """Centroids as float32[count]."""
        centroids_K = reader.floats(self._clusters, "centroids")
        return Dense(centroids_K[self._coder.decode(reader, count, self._clusters)])


def _centroids(sparse_N: Float32, clusters: int) -> Float32:
    """Ascending; a cluster that loses all its values keeps its centroid."""
    centroids_K = np.linspace(sparse_N.min(), sparse_N.max(), clusters, dtype=np.float64)
    ordered_N = np.sort(sparse_N)
    sums_N = np.concatenate([[0.0], np.cumsum(ordered_N, dtype=np.float64)])
    for _ in range(LLOYD_STEPS):
        inner = np.searchsorted(ordered_N, _borders(centroids_K), side="right")
        bounds = np.concatenate([[0], inner, [ordered_N.size]])
        sizes_K = np.diff(bounds)
        centroids_K = np.where(sizes_K > 0, np.diff(sums_N[bounds]) / np.maximum(sizes_K, 1), centroids_K)
    return centroids_K.astype(np.float32)


def _nearest(values_N: Float32, centroids_K: Float32) -> np.ndarray:
    return np.searchsorted(_borders(centroids_K), values_N, side="left")


def _borders(centroids_K: np.ndarray) -> np.ndarray:
    """Half way between neighbours; what lies on one belongs to the lower cluster."""
    return (centroids_K[1:].astype(np.float64) + centroids_K[:-1]) / 2
