"""A board is recorded by the script as a person runs it, and what it wrote plays to the same joules."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mqtt_client import eventually
from pi5 import PMIC, install

from edge.meters.base import MeterError
from edge.meters.raspberry import RaspberrySensor
from edge.meters.record import power_sensor, record
from edge.meters.replay import ReplayMeter
from edge.meters.trace import read_trace

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "scripts/lib/record_meter.py"]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ENVIRONMENT
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


def test_a_second_of_a_board_plays_to_its_joules(said: Path, tmp_path: Path):
    out = tmp_path / "pi5.jsonl"
    done = run("--meter", "raspberry", "--seconds", 1, "--out", out, "--note", "round numbers")
    assert done.returncode == 0, done.stderr
    assert "3.143 W on average" in done.stderr
    trace = read_trace(out)
    assert trace.header.meter == RaspberrySensor.description
    assert trace.header.note == "round numbers"
    assert trace.header.versions.keys() == {"bitfleet", "kernel", "python"}
    assert len(trace.samples) >= 5
    assert all(sample.mw == pytest.approx(3143.0) for sample in trace.samples)
    now_s = 0.0
    with ReplayMeter(trace, monotonic=lambda: now_s) as meter:
        now_s = trace.samples[-1].t_s
        assert meter.read().total_mj == pytest.approx(3143.0 * now_s)


def test_ctrl_c_keeps_what_was_recorded(said: Path, tmp_path: Path):
    out = tmp_path / "pi5.jsonl"
    asked = tmp_path / "asked"
    program = said.parent / "vcgencmd"
    program.write_text(f'#!/bin/sh\necho >> "{asked}"\nexec cat "{said}"\n')
    command = [*COMMAND, "--meter", "raspberry", "--seconds", "600", "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE) as process:
        eventually(lambda: asked.exists() and asked.stat().st_size > 4, "some samples")
        assert not out.exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert len(read_trace(out).samples) >= 2


def test_what_cannot_be_recorded_says_why_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "trace.jsonl"
    for spec, error in [
        ("raspberry", "vcgencmd is not installed"),
        ("none", "says no power in milliwatts"),
        ("rasperry", "did you mean raspberry?"),
    ]:
        done = run("--meter", spec, "--out", out)
        assert (done.returncode, out.exists()) == (1, False)
        assert error in done.stderr
        assert "Traceback" not in done.stderr


def test_failures_are_recorded_and_the_board_is_asked_again(said: Path):
    sensor = power_sensor("raspberry")
    samples = record(sensor, sleep=lambda _: None)
    first = next(samples)
    said.unlink()
    failed = next(samples)
    said.write_text(PMIC)
    again = next(samples)
    samples.close()
    assert first.mw == again.mw == pytest.approx(3143.0)
    assert first.t_s == 0.0 < failed.t_s < again.t_s
    assert failed.mw is None
    assert "ended with status 1" in failed.error


def test_samples_come_at_the_sensors_rate(said: Path):
    began_s, samples = time.monotonic(), record(power_sensor("raspberry"))
    times_s = [next(samples).t_s for _ in range(4)]
    samples.close()
    assert time.monotonic() - began_s >= 0.6
    assert times_s == pytest.approx([0.0, 0.2, 0.4, 0.6], abs=0.1)


def test_a_board_that_never_answers_is_no_recording(said: Path):
    said.unlink()
    with pytest.raises(MeterError, match="ended with status 1"):
        next(record(power_sensor("raspberry")))
