"""What one piece of work took: measured where the meter saw all of it, modelled where it did not, and said so."""

from dataclasses import dataclass

from edge.meters.base import Meter, MeterError, Reading
from protocol.messages import EnergySource


@dataclass(frozen=True, slots=True)
class Energy:
    """An amount, how it was obtained, and why it was not measured although there is a meter (mostly empty)."""

    mj: float
    source: EnergySource
    note: str = ""


class Span:
    """From its making to `end`."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._before = _read(meter)

    def end(self, modelled_mj: float) -> Energy:
        """The energy since this was made.

        Args:
            modelled_mj: what `protocol.energy` says of the work; taken where the meter failed in between.
        """
        self._meter.note_work(modelled_mj)
        before, after = self._before, _read(self._meter)
        if isinstance(before, Reading) and isinstance(after, Reading) and before.holes == after.holes:
            return Energy(max(0.0, after.total_mj - before.total_mj), self._meter.description.source)
        notes = [end for end in (before, after) if isinstance(end, str)]
        note = next(iter(notes), f"meter {self._meter.description.name} was interrupted")
        return Energy(modelled_mj, EnergySource.MODELLED, note)


def _read(meter: Meter) -> Reading | str:
    """A reading, or why there is none."""
    try:
        return meter.read()
    except MeterError as error:
        return str(error)
