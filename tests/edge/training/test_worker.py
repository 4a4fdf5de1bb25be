"""The trainer as a real child process: it answers, stays, obeys its limits and never outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.data import Dataset
from edge.trainer_process import TrainerLimits, TrainerProcess, TrainingRequest
from edge.training.files import read_result, read_tensors, write_result, write_tensors
from edge.training.task import Progress, Report, TrainerError, TrainingResult, TrainingTask
from edge.training.trainer import train
from protocol.architecture import Architecture
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import Precision

TIMEOUT_S = 120.0
LONG = 500
"""Epochs that take longer than any test waits."""


@pytest.fixture
def request_for(tmp_path: Path, network: Architecture, digits: Dataset) -> "Requests":
    return Requests(tmp_path, network, digits)


class Requests:
    """Writes the files of a task and names them."""

    def __init__(self, folder: Path, network: Architecture, digits: Dataset) -> None:
        self.folder, self.network = folder, network
        self.base = initial_tensors(network, Precision.parse("W4A8"), seed=2)
        write_tensors(folder / "base.npz", self.base)
        np.savez(folder / "data.npz", pictures=digits.pictures_NCHW, labels=digits.labels_N)

    def __call__(self, *, epochs: int = 1, spec: str = "", data: str = "data.npz") -> TrainingRequest:
        task = TrainingTask(spec or self.network.spec, "W4A8", epochs, 16, 0.05, 7)
        files = (self.folder / name for name in ("base.npz", data, "result.npz"))
        return TrainingRequest(task, *files, classes=10)


@pytest.fixture(scope="module")
def trainer() -> Iterator[TrainerProcess]:
    """One child for the tests that leave it alive, since each start imports torch."""
    with TrainerProcess(TrainerLimits()) as process:
        yield process


def ignore(progress: Progress) -> None:
    pass


def child_of(trainer: TrainerProcess) -> psutil.Process:
    assert trainer._child is not None
    return psutil.Process(trainer._child._process.pid)


def wait_until_gone(process: psutil.Process) -> None:
    deadline_s = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s, f"process {process.pid} lives on"
        time.sleep(0.02)


def test_the_child_trains_exactly_as_the_function_does(
    trainer: TrainerProcess, request_for: Requests, digits: Dataset
) -> None:
    request, seen = request_for(), list[Progress]()
    result = read_result(trainer.run(request, seen.append, timeout_s=TIMEOUT_S))
    expected = train(request.task, request_for.base, digits, ignore)
    assert all(np.array_equal(result.tensors[name], value) for name, value in expected.tensors.items())
    assert result.report.loss == expected.report.loss
    assert result.report.samples == expected.report.samples
    assert seen[-1].fraction == 1.0


def test_the_child_stays_for_the_next_task_also_after_a_refusal(trainer: TrainerProcess, request_for: Requests) -> None:
    trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
    child = child_of(trainer)
    with pytest.raises(TrainerError, match=r"gone\.npz: found nothing"):
        trainer.run(request_for(data="gone.npz"), ignore, timeout_s=TIMEOUT_S)
    trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
    assert child_of(trainer) == child


@pytest.mark.parametrize(
    ("spec", "message"),
    [("vgg:depth=1", "architecture 'vgg:depth=1'"), (resnet18(width=0.1).spec, "pictures of shape|missing|has shape")],
)
def test_a_task_that_cannot_be_done_is_refused_with_its_reason(
    trainer: TrainerProcess, request_for: Requests, spec: str, message: str
) -> None:
    with pytest.raises(TrainerError, match=message):
        trainer.run(request_for(spec=spec), ignore, timeout_s=TIMEOUT_S)


def test_a_damaged_base_file_is_named(trainer: TrainerProcess, request_for: Requests) -> None:
    base = request_for.folder / "base.npz"
    base.write_bytes(base.read_bytes()[:1000])
    with pytest.raises(TrainerError, match=r"base\.npz: cannot be read as tensors"):
        trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)


def test_a_killed_child_is_reported_by_signal_and_replaced(request_for: Requests) -> None:
    with TrainerProcess(TrainerLimits()) as trainer:
        with pytest.raises(TrainerError, match="the trainer ended with SIGKILL"):
            trainer.run(request_for(epochs=LONG), lambda _: child_of(trainer).kill(), timeout_s=TIMEOUT_S)
        assert trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S).exists()


def test_a_child_that_was_killed_between_tasks_is_replaced_without_a_word(
    trainer: TrainerProcess, request_for: Requests
) -> None:
    trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
    child_of(trainer).kill()
    assert trainer._child is not None
    trainer._child._process.wait()  # a killed process counts as ended only when all its threads are gone
    assert trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S).exists()


def test_a_child_without_work_gives_its_memory_back(request_for: Requests) -> None:
    with TrainerProcess(TrainerLimits(linger_s=0.5)) as trainer:
        trainer.rest()  # nothing there yet
        trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
        child = child_of(trainer)
        trainer.rest()
        assert child.is_running()
        time.sleep(0.6)
        trainer.rest()
        wait_until_gone(child)
        assert read_result(trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)).report.samples


def test_training_that_takes_too_long_is_stopped(trainer: TrainerProcess, request_for: Requests) -> None:
    trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
    child = child_of(trainer)
    with pytest.raises(TrainerError, match=r"training took longer than 0\.3 s and was stopped"):
        trainer.run(request_for(epochs=LONG), ignore, timeout_s=0.3)
    wait_until_gone(child)


def test_stop_from_another_thread_ends_the_run(trainer: TrainerProcess, request_for: Requests) -> None:
    threading.Timer(0.5, trainer.stop).start()
    with pytest.raises(TrainerError, match="the trainer ended"):
        trainer.run(request_for(epochs=LONG), ignore, timeout_s=TIMEOUT_S)


def test_an_error_in_the_progress_listener_does_not_leave_a_busy_child(
    trainer: TrainerProcess, request_for: Requests
) -> None:
    children: list[psutil.Process] = []

    def fail(progress: Progress) -> None:
        children.append(child_of(trainer))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(request_for(epochs=LONG), fail, timeout_s=TIMEOUT_S)
    wait_until_gone(children[0])
    assert trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S).exists()


def test_too_little_memory_is_reported_as_such(request_for: Requests) -> None:
    with (
        TrainerProcess(TrainerLimits(memory_bytes=150_000_000)) as trainer,
        pytest.raises(TrainerError, match="out of memory"),
    ):
        trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)


def test_the_child_runs_at_the_priority_asked_for(trainer: TrainerProcess, request_for: Requests) -> None:
    trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)
    assert child_of(trainer).nice() == min(19, os.nice(0) + TrainerLimits().nice)


def test_a_missing_torch_is_said_with_what_to_install(request_for: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with (
        TrainerProcess(TrainerLimits()) as trainer,
        pytest.raises(TrainerError, match=r"not installed: install bitfleet\[edge-train\]"),
    ):
        trainer.run(request_for(), ignore, timeout_s=TIMEOUT_S)


def test_the_parent_s_side_does_not_import_torch() -> None:
    code = "import edge.trainer_process, edge.training.files, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


PARENT = """
import sys
from pathlib import Path
from edge.trainer_process import TrainerLimits, TrainerProcess, TrainingRequest
from edge.training.task import TrainingTask

folder = Path(sys.argv[1])
task = TrainingTask(sys.argv[2], "W4A8", 500, 16, 0.05, 7)
trainer = TrainerProcess(TrainerLimits())
request = TrainingRequest(task, folder / "base.npz", folder / "data.npz", folder / "result.npz", 10)
trainer.run(request, lambda _: print(trainer._child._process.pid, flush=True), timeout_s=100)
"""


@pytest.mark.chaos
def test_the_child_ends_when_its_parent_is_killed_in_mid_task(request_for: Requests) -> None:
    command = [sys.executable, "-c", PARENT, str(request_for.folder), request_for.network.spec]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        wait_until_gone(child)
    assert not (request_for.folder / "result.npz").exists()


def test_a_result_survives_its_file_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    result = TrainingResult(
        {"a.weight": np.arange(6, dtype=np.float32)}, Report(5, 0.5, 0.75, None, 1.5, 1.25, "cnn4", "W4A8")
    )
    path = tmp_path / "result.npz"
    write_result(path, result)
    returned = read_result(path)
    assert returned.report == result.report
    assert np.array_equal(returned.tensors["a.weight"], result.tensors["a.weight"])
    whole = path.read_bytes()
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        with pytest.raises(TrainerError, match=r"result\.npz"):
            read_result(path)
    write_tensors(path, result.tensors)
    assert list(read_tensors(path)) == ["a.weight"]
    with pytest.raises(TrainerError, match="no report of a training result"):
        read_result(path)
