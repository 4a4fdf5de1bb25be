"""Energy of one call: of whole windows through the meter, less what the idle device takes; modelled where it has to be.

A sensor that reads ten times a second sees no single inference, so energy is of windows, and of those only that hold
enough readings. Both are stated: gross is what left the supply, net is what the work added to an idle device.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from edge.meters.base import Accuracy, Description, Meter
from edge.meters.span import Span
from protocol.messages import EnergySource

MIN_READINGS: Final = 100
"""In a window, by its length and the meter's rate: its two edges are then off by 1 % each at most."""
MAX_IDLE_SHIFT: Final = 0.05
"""Between the idle power before and after; beyond it, something else worked, and what is net is not known."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Power of the idle device in milliwatts, None where the meter did not answer; `note` says why it is not used."""

    before_mw: float | None
    after_mw: float | None
    note: str

    @property
    def idle_mw(self) -> float | None:
        """The mean of both, None where it cannot be used."""
        if self.note or self.before_mw is None or self.after_mw is None:
            return None
        return (self.before_mw + self.after_mw) / 2


@dataclass(frozen=True, slots=True)
class WindowEnergy:
    """What one window took.

    Attributes:
        gross_mj: by the meter, or by `protocol.energy` where the meter was interrupted.
        source: which of the two.
        calls: in the window, which lasted `wall_s`.
    """

    gross_mj: float
    source: EnergySource
    calls: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class CallEnergy:
    """Millijoules of one call: medians over windows.

    Attributes:
        source: measured or modelled, never a mixture.
        gross_mj: everything the device took meanwhile; None where it was not resolvable.
        net_mj: less the idle device; None where that is not known.
        low_mj: the least of a window's net figures, or gross ones where there is no net; high_mj the most.
        note: what a reader must know, mostly empty.
    """

    source: EnergySource
    gross_mj: float | None
    net_mj: float | None
    low_mj: float | None
    high_mj: float | None
    note: str


def idle_power_mw(meter: Meter, for_s: float, sleep: Callable[[float], None] = time.sleep) -> float | None:
    """Mean power while nothing is done, None where the meter was interrupted."""
    span, began_s = Span(meter), time.perf_counter()
    sleep(for_s)
    energy = span.end(0.0)
    return None if energy.note else energy.mj / (time.perf_counter() - began_s)


def baseline_of(before_mw: float | None, after_mw: float | None) -> Baseline:
    """Whether both ends tell of the same idle device."""
    if before_mw is None or after_mw is None:
        return Baseline(before_mw, after_mw, "idle power is not known at both ends: the meter was interrupted")
    shift = abs(after_mw - before_mw) / max(before_mw, after_mw, 1e-9)
    if shift > MAX_IDLE_SHIFT:
        note = f"idle power {before_mw:.0f} mW before and {after_mw:.0f} mW after: expected within {MAX_IDLE_SHIFT:.0%}"
        return Baseline(before_mw, after_mw, note)
    return Baseline(before_mw, after_mw, "")


def energy_of(
    windows: Sequence[WindowEnergy], modelled_mj: float, meter: Description, baseline: Baseline | None
) -> CallEnergy:
    """Energy of one call.

    Args:
        windows: those that count, at least one.
        modelled_mj: of one call.
        meter: what measured.
        baseline: None for a model, in which the idle device has no part.
    """
    seen = [window for window in windows if window.source is EnergySource.MEASURED]
    if meter.accuracy is Accuracy.MODEL or not seen:
        interrupted = "" if meter.accuracy is Accuracy.MODEL else f"meter {meter.name} was interrupted in every window"
        return CallEnergy(EnergySource.MODELLED, modelled_mj, modelled_mj, modelled_mj, modelled_mj, interrupted)
    shortest_s = min(window.wall_s for window in seen)
    if shortest_s * meter.rate_hz < MIN_READINGS:
        enough = f"--seconds {MIN_READINGS / meter.rate_hz:.3g} gives" if meter.rate_hz else "it never gives"
        note = (
            f"not resolvable: a window of {shortest_s:.1f} s holds {shortest_s * meter.rate_hz:.0f} readings of"
            f" {meter.name}; expected {MIN_READINGS}, which {enough}"
        )
        return CallEnergy(EnergySource.MEASURED, None, None, None, None, note)
    gross_mj = [window.gross_mj / window.calls for window in seen]
    idle_mw = baseline.idle_mw if baseline is not None else None
    note = baseline.note if baseline is not None else "idle power was not measured"
    if idle_mw is None:
        return CallEnergy(EnergySource.MEASURED, median(gross_mj), None, min(gross_mj), max(gross_mj), note)
    net_mj = [(window.gross_mj - idle_mw * window.wall_s) / window.calls for window in seen]
    return CallEnergy(EnergySource.MEASURED, median(gross_mj), median(net_mj), min(net_mj), max(net_mj), "")
