"""In what order the tensors of a payload lie: weights one by one, then what is small together.

weights        in the order of the table
deltas         side tensors that are sent as changes: gains, offsets, biases, steps
absolutes      side tensors that are sent as they are: moments; in a whole model, all of them
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from protocol import networks
from protocol.architecture import MOMENTS, Role, TensorSpec
from protocol.codec.half import Sizes
from protocol.precision import parse_several


@dataclass(frozen=True)
class Segment:
    """Which tensors among `deltas` or `absolutes` are one profile's, or shared, and where their values lie."""

    profile: str
    specs: tuple[TensorSpec, ...]
    first: int
    start: int

    @property
    def tensors(self) -> slice:
        """Which of them."""
        return slice(self.first, self.first + len(self.specs))

    @cached_property
    def place(self) -> slice:
        """Their values."""
        return slice(self.start, self.start + sum(spec.size for spec in self.specs))

    @cached_property
    def moments(self) -> tuple[Sizes, Sizes]:
        """Places of the means and of the variances that belong to them, among the segment's values."""
        roles = np.repeat([spec.role for spec in self.specs], [spec.size for spec in self.specs])
        return np.flatnonzero(roles == Role.MEAN), np.flatnonzero(roles == Role.VARIANCE)


@dataclass(frozen=True)
class Layout:
    """The tensors of one kind of payload, in the order of the wire."""

    weights: tuple[TensorSpec, ...]
    deltas: tuple[TensorSpec, ...]
    absolutes: tuple[TensorSpec, ...]

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """All of them."""
        return self.weights + self.deltas + self.absolutes

    @cached_property
    def delta_sizes(self) -> Sizes:
        """Values of each delta."""
        return np.array([spec.size for spec in self.deltas], dtype=np.int64)

    @cached_property
    def absolute_sizes(self) -> Sizes:
        """Values of each absolute."""
        return np.array([spec.size for spec in self.absolutes], dtype=np.int64)

    @cached_property
    def delta_segments(self) -> tuple[Segment, ...]:
        """`deltas` by profile, which lie together."""
        return _segments(self.deltas)

    @cached_property
    def absolute_segments(self) -> tuple[Segment, ...]:
        """`absolutes` by profile, which lie together."""
        return _segments(self.absolutes)

    @cached_property
    def variances(self) -> Sizes:
        """Places of variances among the absolutes."""
        return np.flatnonzero(np.repeat([spec.role is Role.VARIANCE for spec in self.absolutes], self.absolute_sizes))


@lru_cache(maxsize=32)
def layout_of(architecture: str, precision: str, *, whole: bool, shared: bool, moments: bool = True) -> Layout:
    """The layout of a payload.

    Args:
        architecture: spec of the network.
        precision: whose profile is there, or several joined by `+`.
        whole: whether it is a model, and side tensors are absolute.
        shared: whether the shared tensors are there.
        moments: whether means and variances are there.

    Raises:
        RemoteProtocolError: there is no such architecture or precision.
    """
    tensors = networks.parse(architecture).tensors(*parse_several(precision))
    specs = [spec for spec in tensors if (shared or spec.profile) and (moments or spec.role not in MOMENTS)]
    side = [spec for spec in specs if spec.role is not Role.WEIGHT]
    return Layout(
        weights=tuple(spec for spec in specs if spec.role is Role.WEIGHT),
        deltas=() if whole else tuple(spec for spec in side if spec.role not in MOMENTS),
        absolutes=tuple(spec for spec in side if whole or spec.role in MOMENTS),
    )


def _segments(specs: tuple[TensorSpec, ...]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    first = start = 0
    for profile in dict.fromkeys(spec.profile for spec in specs):
        segments.append(Segment(profile, tuple(spec for spec in specs if spec.profile == profile), first, start))
        first, start = segments[-1].tensors.stop, segments[-1].place.stop
    return tuple(segments)
