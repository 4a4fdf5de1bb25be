"""Both drivers of the INA3221, found by labels, on sysfs trees laid out as on the boards."""

import shutil
from pathlib import Path

import pytest
import trees
from meter_contract import MeterContract, Rig

from edge.meters import jetson
from edge.meters.base import Absent, Accuracy, MeterError
from edge.meters.jetson import JetsonSensor
from edge.meters.sampled import PowerMeter


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is no gap."""
    monkeypatch.setattr(jetson, "RATE_HZ", 1.0)


@pytest.mark.usefixtures("slowly")
class TestHwmon(MeterContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
        trees.orin_nano(tmp_path)
        return Rig(
            lambda: jetson.find(tmp_path), lambda: shutil.rmtree(tmp_path / "class"), lambda: trees.orin_nano(tmp_path)
        )


@pytest.mark.usefixtures("slowly")
class TestIio(MeterContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
        trees.nano(tmp_path)
        return Rig(lambda: jetson.find(tmp_path), lambda: shutil.rmtree(tmp_path / "bus"), lambda: trees.nano(tmp_path))


def test_orin_nano_is_its_input_rail(tmp_path: Path):
    trees.orin_nano(tmp_path, mv=5080, ma=1000)
    sensor = JetsonSensor(tmp_path)
    assert sensor.read() == 5080.0  # 5.08 V · 1 A
    assert sensor.description.accuracy is Accuracy.RAIL
    assert "VDD_IN" in sensor.description.includes
    assert "without its carrier board" in sensor.description.includes


def test_nano_is_its_input_rail_whatever_its_number(tmp_path: Path):
    trees.nano(tmp_path, mw=2444)
    assert JetsonSensor(tmp_path).read() == 2444.0


def test_agx_xavier_is_the_sum_of_its_rails(tmp_path: Path):
    trees.agx_xavier(tmp_path)
    assert JetsonSensor(tmp_path).read() == 619 + 774 + 1238 + 0 + 464 + 1846


def test_agx_orin_counts_no_rail_twice(tmp_path: Path):
    trees.agx_orin(tmp_path)
    assert JetsonSensor(tmp_path).read() == 2000.0 + 1000.0 + 3000.0


def test_a_number_that_changed_while_it_was_away_does_not_matter(tmp_path: Path):
    trees.orin_nano(tmp_path, 1)
    meter = jetson.find(tmp_path)
    meter.read()
    shutil.rmtree(tmp_path / "class")
    with pytest.raises(MeterError):
        meter.read()
    trees.orin_nano(tmp_path, 4)
    assert meter.read().holes == 1


@pytest.mark.parametrize("said", ["", "4294967295", "-12", "five", "0"])
def test_nonsense_in_a_file_is_an_error_and_never_energy(tmp_path: Path, said: str):
    chip = trees.orin_nano(tmp_path)
    meter = jetson.find(tmp_path)
    meter.read()
    (chip / "curr1_input").write_text(said)
    with pytest.raises(MeterError, match=r"meter jetson: .*expected"):
        meter.read()
    (chip / "curr1_input").write_text("1000")
    assert meter.read().total_mj == 0.0


def test_no_chip_is_no_meter(tmp_path: Path):
    with pytest.raises(Absent, match="no INA3221"):
        jetson.find(tmp_path)


def test_rails_that_make_up_no_board_are_named(tmp_path: Path):
    trees.write(tmp_path / "class/hwmon/hwmon0", name="ina3221", in1_label="VDD_FAN", in1_input=5000, curr1_input=9)
    with pytest.raises(MeterError, match=r"rails VDD_FAN; expected VDD_IN, or POM_5V_IN") as caught:
        jetson.find(tmp_path)
    assert not isinstance(caught.value, Absent)


def test_joules_of_a_minute_by_hand(tmp_path: Path):
    """A ramp of one second from 5 to 10 W, then ten seconds at 10 W, sampled ten times a second."""
    chip, now_s = trees.orin_nano(tmp_path, mv=5000), 0.0
    meter = PowerMeter(JetsonSensor(tmp_path), monotonic=lambda: now_s)
    for tenth in range(111):
        now_s = tenth / 10
        (chip / "curr1_input").write_text(str(1000 + 100 * min(tenth, 10)))
        reading = meter.read()
    # 7.5 W · 1 s + 10 W · 10 s
    assert reading.total_mj == pytest.approx(107_500.0)
    assert reading.holes == 0
