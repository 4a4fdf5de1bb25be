"""Settings: where they come from, who wins, and what is said of a wrong one."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.config import Config, ConfigError, load
from aggregator.presets import PRESETS
from protocol.precision import Precision

NETWORK = "resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"
JOB = {"architecture": NETWORK}


def settings(text: str = "", path: Path | None = None, **given_: Any) -> Config:
    if path is not None:
        path.write_text(text)
    environment = given_.pop("environment", {})
    return load(path, environment=environment, overrides={"job": JOB, **given_})


def test_the_defaults_let_nobody_in_from_outside() -> None:
    config = settings()
    assert (config.http_host, config.broker_host) == ("127.0.0.1", "127.0.0.1")
    assert config.loopback_only
    assert config.broker == "auto"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    text = 'fleet = "file"\nhttp_port = 1\nbroker_port = 11\n'
    environment = {"BITFLEET_FLEET": "environment", "BITFLEET_HTTP_PORT": "2", "BITFLEET_OTHER": "ignored"}
    config = settings(text, tmp_path / "c.toml", environment=environment, fleet="line", http_port=None)
    assert (config.fleet, config.http_port, config.broker_port) == ("line", 2, 11)


def test_a_job_is_read_from_its_table_and_the_command_line_adds_to_it(tmp_path: Path) -> None:
    text = f'[job]\narchitecture = "{NETWORK}"\nrounds = 3\nquorum = 1\nprecisions = ["W4A8", "fp32"]\n'
    path = tmp_path / "c.toml"
    path.write_text(text)
    config = load(path, environment={}, overrides={"job": {"architecture": None, "rounds": 5}})
    assert config.job.rounds == 5
    assert config.job.quorum == 1.0
    assert config.job.precisions == (Precision(4, 8), Precision(32, 32))


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings('state_dir = "~/state"', tmp_path / "c.toml").state_dir == tmp_path / "state"
    assert settings().state_dir == tmp_path / ".local/state/bitfleet"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http_port = 70000", r"http_port = 70000: expected a port"),
        ("http_port = -1", r"http_port = -1: expected a port"),
        ('http_port = "80"', r"http_port = '80': expected a whole number"),
        ("http_port = true", r"http_port = True: expected a whole number"),
        ("fleet = 7", r"fleet = 7: expected text"),
        ('fleet = "Big Fleet"', r"fleet = 'Big Fleet': .*expected 1 to 64"),
        ('fleet = "aggregator"', r"fleet = 'aggregator'"),
        ('broker = "rabbit"', r"broker = 'rabbit': expected auto, mosquitto, embedded, mqtt://"),
        ('broker = "http://x"', r"broker = 'http://x': expected auto"),
        ('advertise_broker = "x"', r"advertise_broker = 'x': expected mqtt://"),
        ('http_host = ""', r"http_host = '': expected an address"),
        ('broker_host = "mqtt://x"', r"broker_host = 'mqtt://x': expected an address"),
        ("holdout = 3", r"holdout = 3: expected a path"),
        ('http_prot = 1\nfleet = "a"', r"http_prot = 1: unknown key; did you mean http_port\?"),
        ("zzz = 1", r"zzz = 1: unknown key; known keys: advertise_broker, "),
        ("job = 3", r"job = 3: expected a table"),
        ("[job]\nround = 3", r"job.round = 3: unknown key; did you mean job.rounds\?"),
        ("[job]\nrounds = -1", r"rounds = -1: expected 0"),
        ("[job]\nrounds = 1.5", r"job.rounds = 1.5: expected a whole number"),
        ('[job]\nquorum = "half"', r"job.quorum = 'half': expected a number"),
        ("[job]\nprecisions = 8", r"job.precisions = 8: expected a list, each item fp32 or WxAy"),
        ('[job]\nprecisions = ["W9"]', r"job.precisions\[0\] = 'W9': .*expected fp32 or WxAy"),
        ('[job]\nrecipe = "zip"', r"\[job\]: .*zip"),
        ("[job]\ncalibrate_first = 1", r"job.calibrate_first = 1: expected true or false"),
        ("fleet = ", r"c.toml: not TOML"),
        ("\udcff", r"c.toml: not TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_was_expected(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=complaint):
        load(path, environment={}, overrides={"job": JOB})


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_job_and_what_is_given_replaces_it(name: str) -> None:
    architecture = JOB["architecture"] + (",codes=nested" if name == "qrfl" else "")
    job = load(environment={}, overrides={"job": {"architecture": architecture, "preset": name}}).job
    preset = PRESETS[name]
    assert (job.method, job.recipe, job.downlink) == (preset.method, preset.recipe, preset.downlink)
    assert job.precisions == preset.precisions or not preset.precisions
    given = {"architecture": architecture, "preset": name, "recipe": "eden:2"}
    assert load(environment={}, overrides={"job": given}).job == replace(job, recipe="eden:2")


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"job.preset = 'zip': expected one of fbq, "):
        load(environment={}, overrides={"job": JOB | {"preset": "zip"}})


def test_a_missing_network_is_asked_for_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r"job.architecture is missing: .*resnet18:.* --architecture"):
        load(environment={})


def test_an_unknown_network_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="lenet"):
        load(environment={}, overrides={"job": {"architecture": "lenet"}})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: No such file"):
        load(tmp_path / "none.toml", environment={})


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"BITFLEET_HTTP_PORT = 'eighty': expected a whole number"):
        settings(environment={"BITFLEET_HTTP_PORT": "eighty"})


@given(
    st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans()))
)
def test_any_table_is_read_or_refused(table: dict[str, Any]) -> None:
    with suppress(ConfigError):
        load(environment={}, overrides={"job": JOB | table})


# --- jobs beside the main one ---


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(f'[job]\narchitecture = "{NETWORK}"\n{text}')
    return path


def test_jobs_beside_the_main_one_have_settings_of_their_own(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f'[jobs.night]\narchitecture = "{NETWORK}"\ngroups = ["cellar"]\nrounds = 3\nholdout = "~/night.npz"\n',
    )
    night = load(path, environment={}).jobs["night"]
    assert (night.job.rounds, night.job.groups, night.holdout) == (3, ("cellar",), Path.home() / "night.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[jobs.night]\n", "jobs.night.architecture is missing"),
        (f'[jobs.night]\narchitecture = "{NETWORK}"\n', "jobs.night.groups is missing"),
        (f'[jobs.main]\narchitecture = "{NETWORK}"\ngroups = ["a"]\n', "jobs.main: expected another name"),
        (f'[jobs.Night]\narchitecture = "{NETWORK}"\ngroups = ["a"]\n', "jobs.Night: job 'Night'"),
        (f'[jobs.n]\narchitecture = "{NETWORK}"\ngroups = ["a"]\nround = 1\n', "did you mean jobs.n.rounds"),
        ('groups = ["cellar"]\n', "job.groups = .'cellar'.: expected none"),
        (
            "".join(f'[jobs.{name}]\narchitecture = "{NETWORK}"\ngroups = ["x"]\n' for name in "ab"),
            "jobs.b.groups: 'x' works for job a already",
        ),
        ("[jobs]\nnight = 1\n", "jobs = .*: expected tables"),
    ],
)
def test_jobs_that_cannot_be_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, text), environment={})


# --- trust ---


@pytest.mark.parametrize(
    ("table", "guarded"),
    [
        ({}, False),
        ({"http_host": "0.0.0.0"}, True),
        ({"broker_host": "192.168.1.5"}, True),
        ({"http_host": "0.0.0.0", "broker_host": "0.0.0.0", "tls": "off"}, False),
        ({"tls": "on"}, True),
        ({"broker": "mqtts://broker.lan", "broker_host": "0.0.0.0"}, False),
    ],
)
def test_a_fleet_is_guarded_where_others_can_listen_unless_told_otherwise(table: dict[str, Any], guarded: bool) -> None:
    config = load(environment={}, overrides=table | {"job": JOB})
    assert config.guarded is guarded
    assert config.trusts_fleet is guarded


@pytest.mark.parametrize(
    "table",
    [
        {"tls": "yes"},
        {"approve": "never"},
        {"certificate_days": 0.0},
        {"certificate_days": 9999.0},
        {"names": ("https://x",)},
        {"broker_trust": "me"},
        {"broker_port": 70000},
    ],
)
def test_settings_of_trust_that_make_no_sense_are_named(table: dict[str, Any]) -> None:
    (name,) = table
    with pytest.raises(ConfigError, match=f"{name} = .*expected"):
        load(environment={}, overrides=table | {"job": JOB})
