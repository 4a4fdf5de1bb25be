"""The setting `meter`: what it may say, what it then finds, and what happens where nothing answers."""

import shutil
from pathlib import Path

import pytest
import trees
from pi5 import install

from edge.meters.base import Accuracy, MeterError
from edge.meters.choose import Host, open_meter, parse_meter, without_login
from edge.meters.look import look_around
from protocol.messages import EnergySource

TRACE = Path(__file__).parent / "traces" / "jetson.jsonl"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A board with nothing on it."""
    return Host(tmp_path / "sys", tmp_path / "device-tree")


def name(spec: str, host: Host) -> str:
    with open_meter(spec, host) as opened:
        return opened.meter.description.name


def test_auto_takes_the_boards_own_before_the_processors(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert name("auto", host) == "none"
    trees.rapl(host.sysfs)
    assert name("auto", host) == "rapl"
    install(tmp_path, monkeypatch)
    trees.write(host.device_tree, model="Raspberry Pi 5 Model B Rev 1.0\0")
    assert name("auto", host) == "raspberry"
    trees.orin_nano(host.sysfs)
    assert name("auto", host) == "jetson"


def test_a_board_without_any_is_no_cause_for_a_note(host: Host):
    with open_meter("auto", host) as opened:
        assert opened.notes == ()
        assert opened.meter.description.source is EnergySource.MODELLED


def test_auto_never_takes_a_chip_that_its_owner_has_not_named(host: Host):
    trees.write(host.sysfs / "class/hwmon/hwmon0", name="ina226", power1_input=5_000_000, curr1_input=1000)
    assert name("auto", host) == "none"
    with open_meter("hwmon:ina226", host) as opened:
        assert opened.meter.description.accuracy is Accuracy.RAIL
        assert opened.meter.read().holes == 0


def test_auto_passes_over_one_that_fails_and_says_so(host: Host):
    chip = trees.orin_nano(host.sysfs)
    (chip / "curr1_input").write_text("0")
    trees.rapl(host.sysfs)
    with open_meter("auto", host) as opened:
        assert opened.meter.description.name == "rapl"
        assert [note for note in opened.notes if "meter jetson: 0 mW" in note]


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ("jetson", "no INA3221"),
        ("rapl", "no package"),
        ("raspberry", "vcgencmd"),
        ("ina219:bus=250", "/dev/i2c-250 is not there"),
        ("hwmon:ina226", "0 channels"),
        ("tasmota:mqtt://127.0.0.1:1/plug", "refused"),
        ("replay:absent.jsonl", "No such file"),
    ],
)
def test_one_that_is_set_and_not_there_is_modelled_with_a_note(host: Host, spec: str, note: str):
    with open_meter(spec, host) as opened:
        assert opened.meter.description.accuracy is Accuracy.MODEL
        assert len(opened.notes) == 1
        assert note in opened.notes[0]


def test_none_is_modelled_whatever_there_is(host: Host):
    trees.orin_nano(host.sysfs)
    with open_meter("none", host) as opened:
        assert (opened.meter.description.name, opened.notes) == ("none", ())


def test_what_happens_while_it_runs_is_not_taken_for_its_absence(host: Host):
    trees.orin_nano(host.sysfs)
    with pytest.raises(MeterError, match="mine"), open_meter("auto", host):
        raise MeterError("mine")


@pytest.mark.parametrize("spec", ["ina226:bus=1,shunt=0.01", "shelly:mqtt://10.0.0.2/plug", "hwmon:ina226"])
def test_a_setting_makes_a_new_meter_each_time(spec: str):
    (find,) = parse_meter(spec)
    assert find() is not find()


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("", "expected auto, none, jetson, raspberry, rapl or ina219:…"),
        ("jetsen", "did you mean jetson"),
        ("auto:1", "expected auto, none"),
        ("ina219:shunt=-1", "above 0"),
        ("hwmon:", "hwmon:ina226"),
        ("replay:", "replay:jetson.jsonl"),
        ("shelly:10.0.0.2", "shelly:mqtt://host"),
        ("shelly", "shelly:mqtt://host"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(spec: str, hint: str):
    with pytest.raises(ValueError, match=hint):
        parse_meter(spec)


def test_a_password_is_not_shown():
    assert without_login("tasmota:mqtt://me:secret@10.0.0.2/plug") == "tasmota:mqtt://…@10.0.0.2/plug"
    assert without_login("replay:/a@b/c") == "replay:/a@b/c"


def test_a_look_around_says_watts_class_and_what_is_in_it(host: Host):
    trees.orin_nano(host.sysfs, mv=5000, ma=1200)
    (look,) = look_around("auto", host)
    assert look.watts == pytest.approx(6.0, rel=0.05)
    said = look.as_json()
    assert said["meter"] == "jetson"
    assert said["accuracy"] == "rail"
    assert said["source"] == "measured"
    assert said["error_percent"] == 2.0
    assert "VDD_IN" in said["includes"]


def test_a_look_around_names_what_is_set_and_why_it_fails(host: Host):
    trees.orin_nano(host.sysfs)
    shutil.rmtree(host.sysfs)
    trees.write(host.sysfs / "class/hwmon/hwmon0", name="ina3221", in1_label="FAN", in1_input=1, curr1_input=1)
    set_, own = look_around("tasmota:mqtt://me:secret@127.0.0.1:1/plug", host)
    assert "refused" in set_.problem
    assert "secret" not in repr(set_)
    assert "rails FAN" in own.problem
    assert look_around("none", Host(Path("/nowhere"), Path("/nowhere"))) == []


def test_a_trace_is_looked_at_as_what_it_is(host: Host):
    (look,) = look_around(f"replay:{TRACE}", host)
    assert look.watts is None
    assert look.description is not None
    assert look.description.source is EnergySource.MODELLED
