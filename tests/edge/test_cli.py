"""The command as a person meets it: processes, exit codes, and never a traceback."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_command import COMMAND, ENVIRONMENT, ROOT, edge
from edge_support import DEVICE, NETWORK, HandAggregator, broker, export, slot_of, write_digits
from mqtt_client import eventually
from pi5 import install

from edge.codecs import SHOWN
from edge.data import load as load_pictures
from edge.lifecycle import Lifecycle
from edge.runtime import Runtime
from edge.state import load
from edge.training.files import write_result
from edge.training.task import TrainingTask
from edge.training.trainer import train
from protocol.initial import initial_tensors
from protocol.messages import Birth, State, Status, Telemetry
from protocol.precision import Precision

pytestmark = pytest.mark.long


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[HandAggregator]:
    with broker("auto", tmp_path / "broker") as url, HandAggregator.running(url) as hand:
        yield hand


@pytest.mark.parametrize("command", ["run", "join", "infer", "rollback", "measure", "codecs", "doctor", "meters"])
def test_help_teaches_with_an_example(command: str) -> None:
    assert f"bitfleet-edge {command}" in edge(command, "--help").stdout
    assert command in edge("--help").stdout


def test_meters_says_what_is_here_and_how_far_to_trust_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setitem(ENVIRONMENT, "PATH", os.environ["PATH"])
    (found,) = [one for one in json.loads(edge("meters", "--meter", "raspberry", "--json").stdout) if one["watts"]]
    assert found["accuracy"] == "rail"
    assert found["watts"] == pytest.approx(3.143, rel=0.05)
    config = tmp_path / "edge.toml"
    config.write_text('meter = "raspberry"')
    shown = edge("meters", "--config", config).stdout
    assert re.search(r"3\.\d{3} W", shown)
    assert "±10 %" in shown
    assert "did you mean raspberry?" in edge("meters", "--meter", "rasperry", expect=1).stderr


def test_rollback_goes_back_to_the_model_before(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "models")
    assert "no previous model" in edge("rollback", "--state", tmp_path, expect=1).stderr
    for version in (1, 2):
        model = export(seed=version)
        runtime.install(model, slot_of(model, version))
    assert "model version 1" in edge("rollback", "--state", tmp_path).stdout
    current, _ = Runtime.restore(tmp_path / "models")
    assert current.require_current().version == 1


def test_expected_errors_are_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text("device = 5.5")
    cases = {
        ("infer", "x.png"): "no model",
        ("run",): "--aggregator",
        ("run", "--aggregator", "http://127.0.0.1:9"): "holds no token",
        ("run", "--config", str(tmp_path / "edge.toml")): "device = 5.5",
        ("join", "--aggregator", "nonsense"): "http://10.0.0.2:8700",
    }
    for arguments, message in cases.items():
        done = edge(*arguments, "--state", tmp_path / "state", expect=1)
        assert message in done.stderr
        assert done.stderr.strip().count("\n") == 0, done.stderr


def test_codecs_are_measured_on_the_last_update(tmp_path: Path) -> None:
    """A real update: one epoch on real pictures."""
    assert "no update in" in edge("codecs", "--state", tmp_path, expect=1).stderr
    write_digits(tmp_path / "digits.npz")
    task = TrainingTask(NETWORK.spec, "W4A8", 1, 16, 0.05, 0, calibrate_steps=True)
    base = initial_tensors(NETWORK, Precision.parse("W4A8"), 0)
    pictures = load_pictures(tmp_path / "digits.npz", input_shape=NETWORK.input_shape)
    (tmp_path / "work").mkdir()
    write_result(tmp_path / "work" / "result.npz", train(task, base, pictures, lambda _: None))
    rows = {row["recipe"]: row for row in json.loads(edge("codecs", "--state", tmp_path, "--json").stdout)}
    assert set(rows) == set(SHOWN)
    assert rows["fp32"]["error"] == 0
    assert rows["eden:4"]["error"] < rows["eden:2"]["error"] < rows["eden:1"]["error"] < rows["stc:0.0025"]["error"] < 1
    assert rows["stc:0.0025"]["bpp"] < rows["sign"]["bpp"] < rows["uniform:4+rc"]["bpp"] < rows["uniform:4"]["bpp"]
    assert "topk:0.5" in edge("codecs", "topk:.5", "--state", tmp_path).stdout
    assert "recipe 'zip'" in edge("codecs", "zip", "--state", tmp_path, expect=1).stderr


def test_doctor_fails_with_advice_and_speaks_json(tmp_path: Path) -> None:
    assert "join --token" in edge("doctor", "--state", tmp_path, expect=1).stdout
    findings = json.loads(edge("doctor", "--state", tmp_path, "--json", expect=1).stdout)
    assert {"check", "verdict", "detail", "advice"} == set(findings[0])


def test_join_erases_the_token_and_says_where_the_device_is_now(tmp_path: Path, hand: HandAggregator) -> None:
    state = tmp_path / "state"
    done = edge("join", "--aggregator", hand.url, "--token", "secret", "--device", DEVICE, "--state", state)
    assert done.stdout.strip() == f"device {DEVICE} is a member of fleet test"
    assert not (state / "token").exists()
    for path in state.iterdir():
        assert b"secret" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0 or path.name == "lock"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_while_it_trains(tmp_path: Path, hand: HandAggregator, number: signal.Signals) -> None:
    write_digits(tmp_path / "digits.npz")
    state = tmp_path / "state"
    agent = start(state, hand, tmp_path / "digits.npz")
    hand.wait_for(Birth)
    hand.offer(epochs=1000)
    hand.wait_for(Telemetry, lambda told: told.lifecycle == Lifecycle.TRAINING and told.progress > 0)
    trainers = children(agent.pid)
    assert trainers
    agent.send_signal(number)
    assert agent.wait(20) == 0
    hand.wait_for(State, lambda said: said.status is Status.OFFLINE)
    assert not any(Path(f"/proc/{pid}").exists() for pid in trainers)
    record = load((state / "journal").read_bytes())
    assert record.lifecycle is Lifecycle.TRAINING
    assert record.task is not None
    assert record.starts == ()


def test_a_killed_agent_leaves_no_trainer_behind_and_delivers_after_its_restart(
    tmp_path: Path, hand: HandAggregator
) -> None:
    write_digits(tmp_path / "digits.npz")
    state = tmp_path / "state"
    agent = start(state, hand, tmp_path / "digits.npz")
    hand.wait_for(Birth)
    hand.offer(epochs=20)
    hand.wait_for(Telemetry, lambda told: told.lifecycle == Lifecycle.TRAINING and told.progress > 0)
    trainers = children(agent.pid)
    agent.kill()
    agent.wait()
    hand.wait_for(State, lambda said: said.status is Status.OFFLINE)  # the will
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in trainers), "the trainer's end")
    hand.say_round(1, "collecting")
    agent = start(state, hand, tmp_path / "digits.npz")
    manifest, _ = hand.take_upload()
    assert manifest.task == "task-1"
    hand.receipt(manifest)
    hand.wait_for(Telemetry, lambda told: told.lifecycle == Lifecycle.IDLE)
    agent.terminate()
    assert agent.wait(20) == 0


def test_a_second_agent_in_the_same_folder_is_refused(tmp_path: Path, hand: HandAggregator) -> None:
    agent = start(tmp_path / "state", hand, None)
    hand.wait_for(Birth)
    done = edge("run", "--state", tmp_path / "state", "--aggregator", hand.url, expect=1)
    assert "another agent is at work here" in done.stderr
    agent.terminate()
    assert agent.wait(20) == 0


def start(state: Path, hand: HandAggregator, data: Path | None) -> subprocess.Popen[bytes]:
    """`bitfleet-edge run` in the background."""
    arguments = ["run", "--state", state, "--device", DEVICE, "--aggregator", hand.url, "--token", "secret"]
    arguments += ["--data", data] if data is not None else []
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    """Processes started by any thread of `pid`."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
