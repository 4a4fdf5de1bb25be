"""What FedZip's released code charges for its three encodings, beside which the decodable bytes are printed.

A. Malekijoo et al., "FedZip", arXiv 2102.01593; the charges are those of the authors' repository, malekijoo/FedZip.
None of the three can be decoded as charged: words of 2, 1 and 1 bits are no prefix code (their Kraft sum is 1.25), and
differences of ⌊log₂ g⌋ + 1 bits without a mark do not say where one ends. Biases and centroids are not charged.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from protocol.precision import Float32

ADDRESS_BITS: Final = 27
"""Of a position in the address table."""
FLOAT_BITS: Final = 32


@dataclass(frozen=True)
class Charged:
    """Bits for the weights of one update, by encoding, and at full precision."""

    huffman: int = 0
    addresses: int = 0
    differences: int = 0
    fp32: int = 0

    def __add__(self, other: "Charged") -> "Charged":
        return Charged(*(one + more for one, more in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def charged(tensors: Iterable[Float32]) -> Charged:
    """Sum over weight tensors whose values are those of at most three clusters each."""
    total = Charged()
    for values in tensors:
        total += _tensor(values.reshape(-1))
    return total


def _tensor(values_N: Float32) -> Charged:
    clusters_K, codes_N, counts_K = np.unique(values_N, return_inverse=True, return_counts=True)
    if clusters_K.size > 3:
        raise ValueError(f"tensor of {clusters_K.size} different values: expected at most 3 clusters")
    rare_first = np.argsort(counts_K, kind="stable")
    lengths = (2, 1, 1)[-counts_K.size :]
    rarer = rare_first[:-1]
    return Charged(
        huffman=int(sum(length * counts_K[k] for length, k in zip(lengths, rare_first, strict=True))),
        addresses=ADDRESS_BITS * int(counts_K[rarer].sum()),
        differences=sum(_differences(np.flatnonzero(codes_N == k)) for k in rarer),
        fp32=FLOAT_BITS * values_N.size,
    )


def _differences(at_n: np.ndarray) -> int:
    """⌊log₂ g⌋ + 1 bits for each distance g of a position from the one before, the first counted from −1."""
    _, exponents_n = np.frexp(np.diff(at_n, prepend=-1))  # g = mantissa · 2^exponent with 0.5 ≤ mantissa < 1
    return int(exponents_n.sum())
