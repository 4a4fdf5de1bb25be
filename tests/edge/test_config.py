"""Settings are checked once, and every wrong one is named."""

from datetime import time
from pathlib import Path
from typing import Any

import pytest

from edge.config import Config, ConfigError, QuietHours, default_device, read_config
from protocol.topics import check_name


def test_without_settings_there_are_defaults() -> None:
    config = read_config()
    check_name(config.device, "device")
    assert config.state_dir.is_absolute()
    assert config.token_path == config.state_dir / "token"


def test_a_file_is_read_and_overridden_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(
        f'state_dir = "{tmp_path}"\ndevice = "pi-1"\naggregator = "http://10.0.0.2:8700/"\n'
        'quiet_hours = "22:00-06:30"\n'
        'budget_j_per_day = 40\nclasses = ["cat", "dog"]\n'
    )
    config = read_config(file, {"device": "pi-2", "budget_j_per_day": None, "data": tmp_path})
    assert config == Config(
        state_dir=tmp_path,
        device="pi-2",
        aggregator="http://10.0.0.2:8700",
        data=tmp_path,
        classes=("cat", "dog"),
        budget_j_per_day=40.0,
        quiet_hours=QuietHours(time(22, 0), time(6, 30)),
    )


@pytest.mark.parametrize(
    ("key", "value", "expectation"),
    [
        ("device", "Pi 1", "a-z, 0-9"),
        ("device", "aggregator", "not 'aggregator'"),
        ("aggregator", "10.0.0.2", "http://10.0.0.2:8700"),
        ("quiet_hours", "22-6", "22:00-06:30"),
        ("quiet_hours", "22:00-22:00", "different"),
        ("quiet_hours", "25:00-26:00", "hour must be"),
        ("budget_j_per_day", -1, "0 to"),
        ("budget_j_per_day", "much", "number in J/day"),
        ("budget_j_per_day", float("nan"), "number in J/day"),
        ("budget_j_per_day", True, "number in J/day"),
        ("inferences_per_day", 1.5, "whole number"),
        ("max_latency_ms", -1, "0 to"),
        ("max_temperature_c", 500, "20 to 150 °C"),
        ("trainer_threads", 0, "from 1"),
        ("threads", 0, "from 1 to 256 threads"),
        ("outbox_quota_bytes", 5, "bytes"),
        ("classes", ["cat"], "two or more"),
        ("data", "", "a path"),
        ("meter", "jetsen", "did you mean jetson"),
        ("meter", "ina219:shunt=0", "number above 0"),
        ("meter", 5, "expected auto, none, jetson"),
    ],
)
def test_a_wrong_value_is_named_with_key_and_expectation(key: str, value: Any, expectation: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(None, {key: value})
    assert str(caught.value).startswith(f"{key} = {value!r}: ")
    assert expectation in str(caught.value)


def test_a_misspelt_key_is_an_error_that_knows_better() -> None:
    with pytest.raises(ConfigError, match="max_temprature_c: no such setting; did you mean max_temperature_c"):
        read_config(None, {"max_temprature_c": 70})


def test_a_token_does_not_belong_into_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text('token = "secret"')
    with pytest.raises(ConfigError, match="token_file") as caught:
        read_config(file)
    assert "secret" not in str(caught.value)


def test_a_meter_is_automatic_or_named_and_its_password_stays_secret() -> None:
    assert read_config().meter == "auto"
    assert read_config(None, {"meter": "ina226:bus=1,shunt=0.01"}).meter == "ina226:bus=1,shunt=0.01"
    with pytest.raises(ConfigError, match=r"meter = 'shelly:mqtt://…@10.0.0.2'") as caught:
        read_config(None, {"meter": "shelly:mqtt://me:secret@10.0.0.2"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"device = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "edge.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"edge.toml: not TOML"):
        read_config(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("hostname", "device"),
    [("raspberrypi", "raspberrypi"), ("Küche.Local", "k-che-local"), ("___", "device"), ("aggregator", "device")],
)
def test_the_default_name_is_the_hosts_as_far_as_allowed(hostname: str, device: str) -> None:
    assert default_device(hostname) == device


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("22:00-06:30", ["22:00", "23:59", "00:00", "06:29"], ["06:30", "12:00", "21:59"]),
        ("01:00-02:00", ["01:00"], ["02:00"]),
    ],
)
def test_quiet_hours_may_pass_midnight(hours: str, inside: list[str], outside: list[str]) -> None:
    quiet = QuietHours.parse(hours)
    assert all(quiet.contains(time.fromisoformat(now)) for now in inside)
    assert not any(quiet.contains(time.fromisoformat(now)) for now in outside)
