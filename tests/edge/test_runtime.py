"""Only a model that proved itself goes live, and there is always one to fall back on."""

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from edge_support import PICTURES, SPEC, export, slot_of
from foreign_models import constant_model, half_precision_model, linear_model
from onnx import TensorProto

from edge.runtime import NoModel, Runtime
from edge.session import ModelRefused


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [export(seed) for seed in range(3)]


def test_telemetry_is_off_before_the_library_loads() -> None:
    code = "import os; import edge.runtime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    root = Path(__file__).parent.parent.parent
    answer = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, check=True)
    assert answer.stdout == b"1\n"


def test_an_installed_model_answers_and_survives_a_restart(tmp_path: Path, models: list[bytes]) -> None:
    runtime = Runtime(tmp_path)
    runtime.install(models[0], slot_of(models[0]))
    logits_NC = runtime.infer(PICTURES)
    assert logits_NC.shape == (4, 10)
    assert logits_NC.dtype == np.float32
    again, notes = Runtime.restore(tmp_path)
    assert notes == []
    assert again.current == slot_of(models[0])
    assert np.array_equal(again.infer(PICTURES), logits_NC)


def test_the_model_before_stays_for_rollback_and_older_ones_go(tmp_path: Path, models: list[bytes]) -> None:
    runtime = Runtime(tmp_path)
    for version, data in enumerate(models, 1):
        runtime.install(data, slot_of(data, version))
    assert len(list(tmp_path.glob("*.onnx"))) == 2
    before = runtime.infer(PICTURES)
    assert runtime.rollback() == slot_of(models[1], 2)
    assert not np.array_equal(runtime.infer(PICTURES), before)
    assert Runtime.restore(tmp_path)[0].current == slot_of(models[1], 2)


def test_a_model_that_was_rolled_back_from_is_refused_until_another_comes(tmp_path: Path, models: list[bytes]) -> None:
    """The aggregator offers its newest model on every connect; the person who rolled back meant it."""
    runtime = Runtime(tmp_path)
    runtime.install(models[0], slot_of(models[0], 1))
    runtime.install(models[1], slot_of(models[1], 2))
    runtime.rollback()
    again, _ = Runtime.restore(tmp_path)
    with pytest.raises(ModelRefused, match="rolled back"):
        again.install(models[1], slot_of(models[1], 2))
    again.install(models[2], slot_of(models[2], 3))
    assert again.current == slot_of(models[2], 3)


def test_there_is_nothing_to_infer_with_or_roll_back_to_at_first(tmp_path: Path, models: list[bytes]) -> None:
    runtime = Runtime(tmp_path)
    with pytest.raises(NoModel, match="first round"):
        runtime.infer(PICTURES)
    runtime.install(models[0], slot_of(models[0]))
    with pytest.raises(NoModel, match="no previous"):
        runtime.rollback()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "refuses"),
        (b"no model at all", "refuses"),
        (linear_model()[:-1000], "refuses"),
        (constant_model([float("nan")] * 10, ["N", 1, 32, 32]), "finite: False"),
        (constant_model([0.0] * 9, ["N", 1, 32, 32]), r"shape \(2, 9\)"),
        (constant_model([0.0] * 10, ["N", 1, 32, 32]), r"shape \(2, 10\), finite: True; expected \(1, 10\)"),
        (constant_model([0.0] * 10, ["N", 3, 32, 32]), r"takes pictures .*3, 32, 32\]; expected .*1, 32, 32\]"),
        (linear_model(takes="image"), "takes image tensor.* expected pictures"),
        (linear_model(gives="scores"), "gives scores tensor.* expected logits"),
        (linear_model(input_type=TensorProto.DOUBLE), r"takes pictures tensor\(double\)"),
        (linear_model(opset=99), "opset"),
        (linear_model(domain="com.example", weight="Mystery"), "com.example:Mystery.* is not a registered"),
        (half_precision_model(), "Could not find an implementation for Conv"),
    ],
    ids=[
        "empty",
        "noise",
        "truncated",
        "nan",
        "wrong classes",
        "one size only",
        "wrong shape",
        "wrong input",
        "wrong output",
        "wrong type",
        "operator set of the future",
        "operator of a stranger",
        "type without a kernel",
    ],
)
def test_a_bad_model_is_refused_and_the_running_one_stays(
    tmp_path: Path, models: list[bytes], bad: bytes, reason: str
) -> None:
    runtime = Runtime(tmp_path)
    runtime.install(models[0], slot_of(models[0]))
    logits = runtime.infer(PICTURES)
    with pytest.raises(ModelRefused, match=reason):
        runtime.install(bad, slot_of(bad, 2))
    assert runtime.current == slot_of(models[0])
    assert np.array_equal(runtime.infer(PICTURES), logits)
    assert Runtime.restore(tmp_path)[0].current == slot_of(models[0])


def test_another_digest_than_promised_is_refused(tmp_path: Path, models: list[bytes]) -> None:
    with pytest.raises(ModelRefused, match="SHA-256"):
        Runtime(tmp_path).install(models[0], slot_of(models[1]))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_current_model_falls_back_to_the_one_before(tmp_path: Path, models: list[bytes]) -> None:
    runtime = Runtime(tmp_path)
    for version in (1, 2):
        runtime.install(models[version], slot_of(models[version], version))
    path = tmp_path / f"{slot_of(models[2]).digest}.onnx"
    for damage in (models[2][:-1], b""):
        path.write_bytes(damage)
        again, notes = Runtime.restore(tmp_path)
        assert again.current == slot_of(models[1], 1)
        assert "damaged" in notes[0]
    path.unlink()
    assert Runtime.restore(tmp_path)[0].current == slot_of(models[1], 1)


@pytest.mark.parametrize("content", [b"", b"[", b'[{"digest": "00"}]', b"5"])
def test_a_damaged_list_of_models_is_noted_and_waits_for_the_next(
    tmp_path: Path, models: list[bytes], content: bytes
) -> None:
    (tmp_path / "slots.json").write_bytes(content)
    runtime, notes = Runtime.restore(tmp_path)
    assert runtime.current is None
    assert len(notes) == 1
    runtime.install(models[0], slot_of(models[0]))
    assert Runtime.restore(tmp_path)[0].current == slot_of(models[0])


def test_pictures_of_another_shape_or_type_are_named(tmp_path: Path, models: list[bytes]) -> None:
    runtime = Runtime(tmp_path)
    runtime.install(models[0], slot_of(models[0]))
    with pytest.raises(ValueError, match=r"uint8\[1, 3, 32, 32\]: expected uint8\[N, 1, 32, 32\]"):
        runtime.infer(np.zeros((1, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        runtime.infer(np.zeros((1, 1, 32, 32), np.float32))


def test_inferences_in_flight_get_the_answer_of_one_model_through_fifty_swaps(
    tmp_path: Path, models: list[bytes]
) -> None:
    runtime = Runtime(tmp_path)
    expected = []
    for version, data in enumerate(models[:2], 1):
        runtime.install(data, slot_of(data, version))
        expected.append(runtime.infer(PICTURES))
    assert not np.array_equal(*expected)
    before, stop = runtime.inferred, threading.Event()

    def hammer() -> list[int]:
        """Which model gave each answer, 2 for neither."""
        given = []
        while not stop.is_set():
            logits_NC = runtime.infer(PICTURES)
            given.append(next((at for at, known in enumerate(expected) if np.array_equal(known, logits_NC)), 2))
        return given

    with ThreadPoolExecutor(3) as pool:
        hammering = [pool.submit(hammer) for _ in range(3)]
        try:
            for version in range(3, 53):
                data = models[version % 2]
                runtime.install(data, slot_of(data, version))
        finally:
            stop.set()
        answers = [future.result() for future in hammering]
    assert all(set(given) == {0, 1} for given in answers)
    assert min(map(len, answers)) >= 50
    assert runtime.inferred - before == sum(map(len, answers)) * len(PICTURES)


def test_a_model_has_run_the_batch_it_will_serve_before_it_serves(tmp_path: Path) -> None:
    """This one answers for two pictures whatever it is given: only a run of three tells."""
    data = constant_model([0.0] * 10, ["N", 1, 32, 32])
    Runtime(tmp_path, batch=2).install(data, slot_of(data))
    with pytest.raises(ModelRefused, match=r"expected \(3, 10\)"):
        Runtime(tmp_path, batch=3).install(data, slot_of(data, 2))


def test_another_process_follows_the_folder(tmp_path: Path, models: list[bytes]) -> None:
    agent, reader = Runtime(tmp_path), Runtime(tmp_path)
    assert reader.follow() == ""
    agent.install(models[0], slot_of(models[0], 1))
    assert (reader.follow(), reader.current) == ("", slot_of(models[0], 1))
    held = reader.serving
    for version in (2, 3):
        agent.install(models[version - 1], slot_of(models[version - 1], version))
    assert reader.current == slot_of(models[0], 1)
    assert (reader.follow(), reader.current, reader.previous) == ("", agent.current, agent.previous)
    assert np.array_equal(reader.infer(PICTURES), agent.infer(PICTURES))
    assert not np.array_equal(held.session.infer(PICTURES), agent.infer(PICTURES))
    agent.rollback()
    assert (reader.follow(), reader.current) == ("", slot_of(models[1], 2))


def test_what_a_follower_cannot_load_is_said_once_and_the_model_stays(tmp_path: Path, models: list[bytes]) -> None:
    agent = Runtime(tmp_path)
    agent.install(models[0], slot_of(models[0], 1))
    reader, _ = Runtime.restore(tmp_path)
    agent.install(models[1], slot_of(models[1], 2))
    (tmp_path / f"{slot_of(models[1]).digest}.onnx").write_bytes(models[1][:-1])
    note = reader.follow()
    assert "damaged" in note
    assert note.endswith("version 1 stays in use")
    assert (reader.follow(), reader.current) == ("", slot_of(models[0], 1))
    (tmp_path / "slots.json").unlink()
    assert (reader.follow(), reader.current) == ("", slot_of(models[0], 1))


def test_reading_a_folder_changes_nothing_in_it(tmp_path: Path) -> None:
    runtime, notes = Runtime.restore(tmp_path / "new")
    assert (runtime.current, notes, runtime.follow()) == (None, [], "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that holds")
@pytest.mark.parametrize("spare_megabytes", [40, 110, 170])
def test_a_model_without_memory_for_it_is_refused_and_the_running_one_stays(
    tmp_path: Path, models: list[bytes], spare_megabytes: int
) -> None:
    """64 MB of weights, in a real process at its limit: the file, its copy or the weights do not fit."""
    (tmp_path / "small.onnx").write_bytes(models[0])
    (tmp_path / "large.onnx").write_bytes(linear_model(16384))
    script = Path(__file__).with_name("short_of_memory.py")
    command = [sys.executable, script, str(spare_megabytes), "install", tmp_path, SPEC]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"model version 2: .*not enough memory( for its file)?\n", done.stdout)
