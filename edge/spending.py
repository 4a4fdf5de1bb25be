"""What the device spent beside the training of one update, for the aggregator's ledger.

A meter sees everything. What was training and what was inference is known, and the rest is idle: waiting, the radio, and
whatever else runs on the board. Without a meter, or where it was interrupted, there is no rest to speak of.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge.meters.base import Meter, MeterError, Reading
from edge.meters.span import Energy
from protocol.messages import Cost, EnergySource, Purpose, Spent


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where things stood: the meter, None if it did not answer, and pictures inferred."""

    reading: Reading | None
    inferred: int


class Spending:
    """Books kept between two updates.

    Args:
        meter: the device's.
        inferred: pictures that were inferred so far.
        cost: of an inference with the model in use, None while nothing is known of it.
    """

    def __init__(self, meter: Meter, inferred: Callable[[], int], cost: Callable[[], Cost | None]) -> None:
        self._meter, self._inferred, self._cost = meter, inferred, cost
        self._trained: list[Energy] = []
        self._mark = self._now()

    def note(self, training: Energy) -> None:
        """Training was done, for an update or for nothing."""
        self._trained.append(training)

    def take(self, own: Energy) -> tuple[Spent, ...]:
        """Everything since the last call but `own`, the training of the update that this goes with."""
        before, self._mark = self._mark, self._now()
        trained, self._trained = self._trained, []
        wasted = [energy for energy in trained if energy is not own]
        inference = self._inference(before)
        entries = [_sum(Purpose.TRAINING, wasted), inference, self._idle(before, trained, inference)]
        return tuple(entry for entry in entries if entry is not None and entry.energy_mj > 0)

    def _inference(self, before: _Mark) -> Spent | None:
        cost, count = self._cost(), self._mark.inferred - before.inferred
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
            return _Mark(self._meter.read(), self._inferred())
        except MeterError:
            return _Mark(None, self._inferred())


def _sum(purpose: Purpose, energies: list[Energy]) -> Spent | None:
    """Modelled if any of it is."""
    modelled = any(energy.source is EnergySource.MODELLED for energy in energies)
    source = EnergySource.MODELLED if modelled else EnergySource.MEASURED
    return Spent(purpose, sum(energy.mj for energy in energies), source) if energies else None
