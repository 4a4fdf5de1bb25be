"""What is booked beside an update's own training: each joule once, and measured only where all of it was."""

from dataclasses import dataclass, field

from edge.meters.base import Accuracy, Description, MeterError, Passive, Reading
from edge.meters.modelled import ModelledMeter
from edge.meters.span import Energy
from edge.spending import Counts, Spending
from protocol.messages import Cost, EnergySource, Purpose, Spent

MEASURED, MODELLED = EnergySource.MEASURED, EnergySource.MODELLED


@dataclass
class _Dial(Passive):
    """A meter whose total the test turns."""

    total_mj: float = 0.0
    holes: int = 0
    broken: bool = False
    description: Description = field(default=Description("dial", Accuracy.RAIL, 1.0, 10.0, "the test"))

    def read(self) -> Reading:
        if self.broken:
            raise MeterError("dial stuck")
        return Reading(self.total_mj, self.holes)


@dataclass
class _Day:
    meter: _Dial
    inferred: int = 0
    cost: Cost | None = None

    def spending(self) -> Spending:
        return Spending(self.meter, lambda: Counts(self.inferred, 0), lambda: self.cost)


def test_a_measured_day_closes():
    day = _Day(_Dial(100.0), cost=Cost("W4A8", 1.0, 2.0, MEASURED))
    spending = day.spending()
    failed, own = Energy(50.0, MEASURED), Energy(300.0, MEASURED)
    spending.note(failed)
    spending.note(own)
    day.inferred, day.meter.total_mj = 10, 1100.0
    spent = {entry.purpose: entry for entry in spending.take(own).spent}
    assert spent == {
        Purpose.TRAINING: Spent(Purpose.TRAINING, 50.0, MEASURED),
        Purpose.INFERENCE: Spent(Purpose.INFERENCE, 20.0, MEASURED),
        Purpose.IDLE: Spent(Purpose.IDLE, 630.0, MEASURED),
    }
    assert own.mj + sum(entry.energy_mj for entry in spent.values()) == 1000.0
    day.meter.total_mj += 7.0
    assert spending.take(Energy(0.0, MEASURED)).spent == (Spent(Purpose.IDLE, 7.0, MEASURED),)


def test_a_device_without_a_meter_knows_no_idle():
    spending = Spending(ModelledMeter(), lambda: Counts(0, 0), lambda: None)
    own = Energy(300.0, MODELLED)
    spending.note(own)
    assert spending.take(own).spent == ()


def test_what_was_modelled_is_never_taken_off_what_was_measured():
    day = _Day(_Dial(), cost=Cost("W4A8", 1.0, 2.0, MODELLED))
    spending = day.spending()
    day.inferred, day.meter.total_mj = 5, 500.0
    assert spending.take(Energy(0.0, MEASURED)).spent == (Spent(Purpose.INFERENCE, 10.0, MODELLED),)


def test_nothing_is_told_of_time_that_the_meter_missed():
    day = _Day(_Dial())
    spending = day.spending()
    day.meter.total_mj, day.meter.holes = 500.0, 1
    assert spending.take(Energy(0.0, MEASURED)).spent == ()
    day.meter.broken = True
    assert spending.take(Energy(0.0, MEASURED)).spent == ()
    day.meter.broken, day.meter.total_mj = False, 900.0
    assert spending.take(Energy(0.0, MEASURED)).spent == ()
