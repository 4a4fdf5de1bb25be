"""What every meter must do. A new meter inherits all of it by saying how to break and mend it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from edge.meters.base import Accuracy, Meter, MeterError, Reading
from edge.meters.span import Span
from protocol.messages import EnergySource


@dataclass
class Rig:
    """A meter with the device under it in a test's hands.

    Attributes:
        make: a meter that has not been entered.
        break_: make the device vanish.
        mend: bring it back.
        move: what must go on for the device to be believable, before each reading.
    """

    make: Callable[[], Meter]
    break_: Callable[[], object]
    mend: Callable[[], object]
    move: Callable[[], object] = lambda: None

    def read(self, meter: Meter) -> Reading:
        self.move()
        return meter.read()


class MeterContract:
    """Inherit, and give a fixture `rig`."""

    def test_it_says_what_it_is(self, rig: Rig):
        what = rig.make().description
        assert what.name
        assert what.includes
        assert 0.0 < what.error_percent <= 20.0
        assert what.rate_hz > 0.0

    def test_its_total_grows_without_holes(self, rig: Rig):
        with rig.make() as meter:
            readings = [rig.read(meter) for _ in range(5)]
        totals_mj = [reading.total_mj for reading in readings]
        assert totals_mj == sorted(totals_mj)
        assert totals_mj[-1] > 0.0
        assert {reading.holes for reading in readings} == {0}

    def test_work_that_is_noted_was_seen_already(self, rig: Rig):
        with rig.make() as meter:
            rig.move()
            meter.note_work(1e12)
            assert rig.read(meter).total_mj < 1e9

    def test_where_it_is_not_there_entering_says_so(self, rig: Rig):
        meter = rig.make()
        rig.break_()
        with pytest.raises(MeterError), meter:
            pytest.fail("entered")

    def test_one_that_vanishes_and_comes_back_has_a_hole_and_keeps_its_total(self, rig: Rig):
        with rig.make() as meter:
            before = rig.read(meter)
            rig.break_()
            for _ in range(2):
                with pytest.raises(MeterError, match=r"meter|No such file"):
                    meter.read()
            rig.mend()
            after = rig.read(meter)
            assert after.holes == before.holes + 1
            assert after.total_mj >= before.total_mj
            assert rig.read(meter).holes == after.holes

    def test_a_span_over_a_hole_is_modelled_and_one_after_it_is_measured_again(self, rig: Rig):
        with rig.make() as meter:
            rig.move()
            over = Span(meter)
            rig.break_()
            with pytest.raises(MeterError):
                meter.read()
            rig.mend()
            rig.move()
            assert over.end(7.0).source is EnergySource.MODELLED
            rig.move()
            after = Span(meter)
            rig.move()
            spent = after.end(7.0)
        measured = meter.description.accuracy is not Accuracy.MODEL
        assert spent.source is (EnergySource.MEASURED if measured else EnergySource.MODELLED)
        assert spent.note == ""

    def test_any_thread_may_read_it(self, rig: Rig):
        with rig.make() as meter, ThreadPoolExecutor(4) as pool:
            readings = list(pool.map(lambda _: rig.read(meter), range(12)))
            last = rig.read(meter)
        assert all(0 <= reading.total_mj <= last.total_mj for reading in readings)

    def test_its_thread_ends_with_the_block(self, rig: Rig):
        with rig.make() as meter:
            name = meter.description.name
        assert not [thread for thread in threading.enumerate() if name in thread.name]
