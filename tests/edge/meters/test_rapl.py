"""RAPL counters in a tree as powercap shows it, and this machine's own where it has some."""

import os
import threading
import time
from pathlib import Path

import pytest
import trees
from meter_contract import MeterContract, Rig

from edge.meters import rapl
from edge.meters.base import Absent, Accuracy, MeterError

STEP_UJ = 50


def advance(sysfs: Path, step_uj: int = STEP_UJ, dram_uj: int = 0) -> None:
    """Move the package's counter, and that of its DRAM, as atomically as a kernel does."""
    package = sysfs / "class/powercap/intel-rapl:0"
    for file, step in ((package / "energy_uj", step_uj), (package / "intel-rapl:0:1/energy_uj", dram_uj)):
        value = int(file.read_text()) + step
        partial = file.with_name("partial")
        partial.write_text(f"{value}\n")
        partial.replace(file)


class TestContract(MeterContract):
    @pytest.fixture
    def rig(self, tmp_path: Path) -> Rig:
        package, aside = trees.rapl(tmp_path), tmp_path / "aside"
        one_at_a_time = threading.Lock()  # set back by another thread, the counter would jump

        def move() -> None:
            with one_at_a_time:
                advance(tmp_path)

        return Rig(lambda: rapl.find(tmp_path), lambda: package.rename(aside), lambda: aside.rename(package), move)


def test_packages_and_their_dram_are_counted_and_nothing_twice(tmp_path: Path):
    trees.rapl(tmp_path, 0)
    trees.rapl(tmp_path, 1, dram_uj=None)
    meter = rapl.find(tmp_path)
    assert meter.description.accuracy is Accuracy.PACKAGE
    assert meter.description.includes.startswith("package-0, package-0 dram, package-1;")
    meter.read()
    advance(tmp_path, 300, 200)
    assert meter.read().total_mj == pytest.approx(0.5)


def test_it_goes_on_over_a_wrap(tmp_path: Path):
    trees.rapl(tmp_path, package_uj=262143328850 - 100)
    meter = rapl.find(tmp_path)
    meter.read()
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").write_text("200")
    reading = meter.read()
    assert (reading.total_mj, reading.holes) == (pytest.approx(0.3), 0)


def test_counters_of_a_virtual_machine_that_stand_still_are_no_meter(tmp_path: Path):
    trees.rapl(tmp_path)
    meter = rapl.find(tmp_path)
    meter.read()
    time.sleep(0.15)
    with pytest.raises(MeterError, match="expected a counter that moves"):
        meter.read()


def test_a_machine_without_counters_has_no_meter(tmp_path: Path):
    with pytest.raises(Absent, match=r"no package in .*class/powercap"):
        rapl.find(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_counters_that_may_not_be_read_are_an_error_with_the_file(tmp_path: Path):
    package = trees.rapl(tmp_path)
    (package / "energy_uj").chmod(0)
    with pytest.raises(MeterError, match=r"Permission denied: .*energy_uj"):
        rapl.find(tmp_path).read()


def test_a_range_that_is_no_number_is_an_error(tmp_path: Path):
    package = trees.rapl(tmp_path)
    (package / "max_energy_range_uj").write_text("many")
    with pytest.raises(MeterError, match=r"meter rapl: .*'many', expected a whole number"):
        rapl.find(tmp_path)


def test_this_machines_own_counters():
    try:
        meter = rapl.find()
        meter.read()
    except MeterError as error:
        pytest.skip(f"no RAPL that this user may read: {error}")
    with meter:
        before = meter.read()
        time.sleep(0.5)
        after = meter.read()
    assert after.holes == before.holes
    assert 100.0 < (after.total_mj - before.total_mj) / 0.5 < 2_000_000.0
