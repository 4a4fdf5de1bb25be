"""What a piece of work took: measured where the meter saw all of it, else modelled, and never silently."""

from dataclasses import dataclass, field

import pytest

from edge.meters.base import Accuracy, Description, Meter, MeterError, Passive, Reading
from edge.meters.modelled import ModelledMeter
from edge.meters.span import Energy, Span
from protocol.messages import EnergySource


@dataclass
class _Script(Passive):
    """A meter that says what it is told to."""

    says: list[Reading | MeterError]
    description: Description = field(default=Description("script", Accuracy.RAIL, 1.0, 10.0, "nothing real"))

    def read(self) -> Reading:
        said = self.says.pop(0)
        if isinstance(said, MeterError):
            raise said
        return said


def _spent(meter: Meter, modelled_mj: float = 7.0) -> Energy:
    return Span(meter).end(modelled_mj)


def test_a_meter_that_saw_it_all_is_believed():
    assert _spent(_Script([Reading(10.0), Reading(35.5)])) == Energy(25.5, EnergySource.MEASURED)


def test_a_device_without_a_meter_says_modelled():
    assert _spent(ModelledMeter()) == Energy(7.0, EnergySource.MODELLED)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([Reading(10.0, 0), Reading(35.5, 1)], "meter script was interrupted"),
        ([MeterError("bus gone"), Reading(35.5, 1)], "bus gone"),
        ([Reading(10.0), MeterError("bus gone")], "bus gone"),
        ([MeterError("first"), MeterError("second")], "first"),
    ],
)
def test_what_the_meter_did_not_see_is_modelled_and_says_why(says: list[Reading | MeterError], why: str):
    assert _spent(_Script(says)) == Energy(7.0, EnergySource.MODELLED, why)
