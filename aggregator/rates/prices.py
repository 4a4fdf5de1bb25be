"""What communication costs a policy: joules of a byte by the channel, and the bytes that no width changes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from aggregator.rates.base import Prices
from protocol.channel import Channel
from protocol.codec.payload import Content, Header, encode

_J_PER_MJ = 1e-3


def prices_of(channel: Channel, distances_km: Sequence[float], fleet_km: Iterable[float]) -> Prices:
    """Prices of a round.

    Args:
        channel: of the cell.
        distances_km: of the devices that take part.
        fleet_km: of all devices.
    """
    farthest_km = max(fleet_km)
    return Prices(
        up_j_per_byte=_J_PER_MJ * sum(channel.up_mj(1.0, distance) for distance in distances_km),
        most_up_j_per_byte=_J_PER_MJ * len(distances_km) * channel.up_mj(1.0, farthest_km),
        down_j_per_byte=_J_PER_MJ * channel.down_mj(1.0, distances_km),
        most_down_j_per_byte=_J_PER_MJ * channel.down_mj(1.0, [farthest_km]),
    )


@lru_cache(maxsize=16)
def side_bytes(architecture: str, precision: str, pictures: int) -> tuple[int, int]:
    """Bytes of an update and of a whole model beside the codes of `uniform`, at most.

    Args:
        architecture: spec of the network.
        precision: whose profiles go along, or several joined by `+`.
        pictures: behind an update; without any it has no moments.
    """
    return (
        _beside(Header(architecture, "uniform:1", precision, Content.DELTA, pictures)),
        _beside(Header(architecture, "uniform:1", precision, Content.WEIGHTS, 0)),
    )


def _beside(header: Header) -> int:
    weights = header.layout.weights
    zeros = {spec.name: np.zeros(spec.shape, dtype=np.float32) for spec in header.specs}
    whole = len(encode(header, zeros, np.random.default_rng(0)))
    codes = sum(spec.size for spec in weights) // 8
    return whole - codes + len(weights)  # a tensor's last byte may be filled less at another width
