"""Conditions and throttling, on trees of files as boards have them."""

from pathlib import Path

import pytest

from edge.measure.conditions import board, conditions, moment
from edge.measure.throttling import Throttling, read_throttling, throttled_between


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def silent() -> str:
    return ""


def test_a_bare_machine_tells_nothing_and_nothing_is_guessed(tmp_path: Path) -> None:
    at = moment(tmp_path, lambda root: read_throttling(root, silent))
    assert (at.frequency_mhz, at.throttling) == (None, None)
    told = conditions(1, at, at, tmp_path)
    assert told.governor is None
    assert told.board
    assert told.versions["onnxruntime"].startswith("1.")


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "1500000\n",
        },
    )
    at = moment(root, lambda root: read_throttling(root, lambda: "throttled=0x50005\n"))
    assert at.frequency_mhz == 1500.0
    assert at.throttling == Throttling(("under-voltage", "throttled"), 2)
    told = conditions(2, at, at, root)
    assert (told.board, told.governor, told.threads) == ("Raspberry Pi 4 Model B Rev 1.4", "ondemand,performance", 2)


def test_a_processor_by_its_name(tmp_path: Path) -> None:
    root = lay(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name\t: Some CPU @ 2 GHz\nflags : fpu\n"})
    assert board(root) == "Some CPU @ 2 GHz"


def test_counters_of_x86(tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count"
    root = lay(tmp_path, {folder.format(0, "core"): "3\n", folder.format(1, "package"): "4\n"})
    assert read_throttling(root, silent) == Throttling((), 7)


def test_a_jetson(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert\n",
            "sys/class/thermal/cooling_device0/cur_state": "1\n",
            "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
            "sys/class/thermal/cooling_device1/cur_state": "5\n",
            "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "2\n",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": "1\n",
        },
    )
    assert read_throttling(root, silent) == Throttling(("cpu-throttle-alert",), 3)


@pytest.mark.parametrize("answer", ["", "throttled=", "VCHI initialization failed", "throttled=0xzz"])
def test_a_program_that_says_something_else_says_nothing(tmp_path: Path, answer: str) -> None:
    assert read_throttling(tmp_path, lambda: answer) is None


def test_a_window_counts_unless_the_board_slowed_down() -> None:
    calm = Throttling((), 4)
    assert throttled_between(None, None) == ""
    assert throttled_between(calm, calm) == ""
    assert throttled_between(calm, Throttling(("throttled",), 4)) == "throttled: throttled"
    assert throttled_between(calm, Throttling((), 6)) == "throttled: 2 new events"
