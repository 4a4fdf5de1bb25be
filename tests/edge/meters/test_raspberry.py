"""The Pi 5's power chip through a real program called vcgencmd, which prints `pmic.txt`: real names, round numbers."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from meter_contract import MeterContract, Rig
from pi5 import PMIC, install

from edge.meters import raspberry
from edge.meters.base import Absent, MeterError
from edge.meters.raspberry import RaspberrySensor, rails_mw
from edge.meters.sampled import PowerMeter

# 74 + 330 + 360 + 11 + 0 + 220 + 240 + 1800 + 0 + 0 + 8 + 100, in rising order of the lines
BOARD_MW = 3143.0


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that vcgencmd prints."""
    return install(tmp_path, monkeypatch)


class TestContract(MeterContract):
    @pytest.fixture
    def rig(self, said: Path) -> Rig:
        return Rig(lambda: PowerMeter(RaspberrySensor()), said.unlink, lambda: said.write_text(PMIC, encoding="utf-8"))


def test_the_board_is_the_sum_of_its_rails(said: Path):
    sensor = RaspberrySensor()
    sensor.open()
    assert sensor.read() == pytest.approx(BOARD_MW)


def test_rails_are_paired_by_name_and_voltages_alone_are_no_rails():
    powers_mw = rails_mw(PMIC)
    assert powers_mw["VDD_CORE"] == pytest.approx(1800.0)
    assert len(powers_mw) == 12
    assert not {"EXT5V", "BATT"} & powers_mw.keys()


@pytest.mark.parametrize("text", ["", 'error=1 error_msg="Command not registered"', "VDD_CORE_A current(7)=2.0A"])
def test_what_is_no_list_of_rails_is_refused(text: str):
    with pytest.raises(ValueError, match="expected NAME_A and NAME_V of each rail"):
        rails_mw(text)


@given(st.text(st.sampled_from("VDD_CORE_AV 37currentvolt()=.0-\n"), max_size=80))
@example(PMIC.replace("2.00000000A", "2.0.0A"))
def test_any_text_is_rails_or_refused(text: str):
    with suppress(ValueError):
        assert all(mw >= 0.0 for mw in rails_mw(text).values())


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("VDD_CORE_A current(7)=2.00000000A\n", "\n", "rails VDD_CORE are missing, expected 12 rails"),
        ("VDD_CORE_A current(7)=2.00000000A", "VDD_CORE_A current(7)=-2.0A", "rails VDD_CORE are missing"),
        ("VDD_CORE_A current(7)=2.00000000A", "VDD_CORE_A current(7)=2.0.0A", "could not convert"),
        ("VDD_CORE_A current(7)=2.00000000A", "VDD_CORE_A current(7)=90.0A", "at most 30000 mW"),
        ("VDD_CORE_V volt(15)=0.90000000V\n", "\n", "VDD_CORE without a voltage"),
    ],
)
def test_a_rail_that_is_lost_or_cannot_be_is_an_error_and_a_hole(said: Path, before: str, after: str, error: str):
    meter = PowerMeter(RaspberrySensor())
    meter.read()
    said.write_text(PMIC.replace(before, after))
    with pytest.raises(MeterError, match=f"meter raspberry: .*{error}"):
        meter.read()
    said.write_text(PMIC)
    assert meter.read().holes == 1


def test_a_command_that_fails_says_why(said: Path):
    (said.parent / "vcgencmd").write_text("#!/bin/sh\necho 'Can not open device file: /dev/vcio' >&2\nexit 255\n")
    with pytest.raises(MeterError, match=r"vcgencmd pmic_read_adc ended with status 255: Can not open device file"):
        RaspberrySensor().open()


def test_a_command_that_hangs_is_given_up(said: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(raspberry, "TIMEOUT_S", 0.2)
    (said.parent / "vcgencmd").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(MeterError, match=r"took more than 0.2 s"):
        RaspberrySensor().open()


def test_without_the_command_there_is_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="vcgencmd is not installed"):
        RaspberrySensor().open()


@pytest.mark.parametrize(
    ("model", "there"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0\0", True),
        ("Raspberry Pi 500 Rev 1.0\0", True),
        ("Raspberry Pi Compute Module 5 Rev 1.0\0", True),
        ("Raspberry Pi 4 Model B Rev 1.4\0", False),
        ("NVIDIA Jetson Orin Nano\0", False),
        (None, False),
    ],
)
def test_the_device_tree_says_which_boards_have_it(tmp_path: Path, model: str | None, there: bool):
    if model is not None:
        (tmp_path / "model").write_text(model)
    if there:
        assert raspberry.find(tmp_path).description.name == "raspberry"
    else:
        with pytest.raises(Absent, match="expected one of Raspberry Pi 5"):
            raspberry.find(tmp_path)
