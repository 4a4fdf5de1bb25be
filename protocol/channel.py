"""Joules of a bit on the air where nobody measured them: path loss, Shannon's rate, transmit power.

    r = B · log2(1 + P·g / (N0·B))      C. E. Shannon, "A Mathematical Theory of Communication", 1948
    e = P / r                           joules a bit
    g = −(128.1 + 37.6 · log10 d/km) dB 3GPP TR 36.814, table A.2.1.1.2-3, urban macro at 2 GHz

No shadowing, no fading and no protocol overhead are in it, and idle listening costs nothing: figures from here rank
ways to communicate and are `modelled`, never mixed with measured ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import log2, log10
from typing import Final

NEAREST_KM: Final = 0.05
FARTHEST_KM: Final = 0.5
"""Devices lie evenly between these distances, unless theirs are known."""
USUAL_KM: Final = (NEAREST_KM + FARTHEST_KM) / 2


@dataclass(frozen=True, slots=True)
class Channel:
    """One cell: what devices and the station send with.

    Attributes:
        up_hz: bandwidth that each device has to itself.
        down_hz: bandwidth of the station's broadcast.
        up_w: transmit power of a device (23 dBm).
        down_w: transmit power of the station (46 dBm).
        noise_dbm_per_hz: N0.
    """

    up_hz: float = 1e6
    down_hz: float = 20e6
    up_w: float = 0.2
    down_w: float = 40.0
    noise_dbm_per_hz: float = -174.0

    def up_bps(self, distance_km: float) -> float:
        """Bits a second from a device at that distance."""
        return self._bps(self.up_w, self.up_hz, distance_km)

    def down_bps(self, distance_km: float) -> float:
        """Bits a second to a device at that distance."""
        return self._bps(self.down_w, self.down_hz, distance_km)

    def up_mj(self, payload_bytes: float, distance_km: float) -> float:
        """Millijoules that a device spends to send a payload."""
        return 8e3 * payload_bytes * self.up_w / self.up_bps(distance_km)

    def down_mj(self, payload_bytes: float, distances_km: Iterable[float]) -> float:
        """Millijoules that the station spends to send one payload to all: at the rate of whoever is farthest."""
        return 8e3 * payload_bytes * self.down_w / self.down_bps(max(distances_km))

    def _bps(self, watts: float, hz: float, distance_km: float) -> float:
        if not distance_km > 0:
            raise ValueError(f"distance {distance_km} km: expected above 0")
        gain = _ratio(-(128.1 + 37.6 * log10(distance_km)))
        noise_w = _ratio(self.noise_dbm_per_hz - 30.0) * hz
        return hz * log2(1.0 + watts * gain / noise_w)


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 10.0))
