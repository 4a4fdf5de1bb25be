"""What the device spent beside the training of one update, for the aggregator's ledger.

A meter sees everything. What was training and what was inference is known, and the rest is idle: waiting, the radio,
and whatever else runs on the board. Without a meter, or where it was interrupted, there is no rest to speak of.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge.meters.base import Meter, MeterError, Reading
from edge.meters.span import Energy
from protocol.messages import Cost, EnergySource, Purpose, Spent


@dataclass(frozen=True, slots=True)
class Counts:
    """Pictures inferred and bytes fetched over HTTP, since the agent started."""

    inferred: int
    fetched_bytes: int


@dataclass(frozen=True, slots=True)
class Books:
    """What happened between two updates beside the training of the second: bytes fetched, energy by purpose."""

    fetched_bytes: int
    spent: tuple[Spent, ...]


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where things stood; the meter's reading is None if it did not answer."""

    reading: Reading | None
    counts: Counts


class Spending:
    """Books kept between two updates.

    Args:
        meter: the device's.
        counts: what was done so far.
        cost: of an inference with the model in use, None while nothing is known of it.
    """

    def __init__(self, meter: Meter, counts: Callable[[], Counts], cost: Callable[[], Cost | None]) -> None:
        self._meter, self._counts, self._cost = meter, counts, cost
        self._trained: list[Energy] = []
        self._mark = self._now()

    def note(self, training: Energy) -> None:
        """Training was done, for an update or for nothing."""
        self._trained.append(training)

    def take(self, own: Energy) -> Books:
        """Everything since the last call but `own`, the training of the update that this goes with."""
        before, self._mark = self._mark, self._now()
        trained, self._trained = self._trained, []
        wasted = [energy for energy in trained if energy is not own]
        inference = self._inference(before)
        entries = [_sum(Purpose.TRAINING, wasted), inference, self._idle(before, trained, inference)]
        spent = tuple(entry for entry in entries if entry is not None and entry.energy_mj > 0)
        return Books(self._mark.counts.fetched_bytes - before.counts.fetched_bytes, spent)

    def _inference(self, before: _Mark) -> Spent | None:
        cost, count = self._cost(), self._mark.counts.inferred - before.counts.inferred
        return Spent(Purpose.INFERENCE, count * cost.energy_mj, cost.source) if cost is not None and count else None

    def _idle(self, before: _Mark, trained: list[Energy], inference: Spent | None) -> Spent | None:
        """What is left of what was measured, where all that is taken off was measured too."""
        sources = [energy.source for energy in trained] + ([inference.source] if inference else [])
        start, end = before.reading, self._mark.reading
        is_measured = self._meter.description.source is EnergySource.MEASURED and EnergySource.MODELLED not in sources
        if not is_measured or start is None or end is None or start.holes != end.holes:
            return None
        known_mj = sum(energy.mj for energy in trained) + (inference.energy_mj if inference else 0.0)
        return Spent(Purpose.IDLE, max(0.0, end.total_mj - start.total_mj - known_mj), EnergySource.MEASURED)

    def _now(self) -> _Mark:
        try:
            return _Mark(self._meter.read(), self._counts())
        except MeterError:
            return _Mark(None, self._counts())


def _sum(purpose: Purpose, energies: list[Energy]) -> Spent | None:
    """Modelled if any of it is."""
    modelled = any(energy.source is EnergySource.MODELLED for energy in energies)
    source = EnergySource.MODELLED if modelled else EnergySource.MEASURED
    return Spent(purpose, sum(energy.mj for energy in energies), source) if energies else None
