"""Only a model that proved itself goes live, and there is always one to fall back on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_support import PICTURES, export, slot_of
from onnx import TensorProto, helper

from edge.runtime import ModelRefused, NoModel, Runtime


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


def constant_model(logits: list[float], shape: list[int | str]) -> bytes:
    """Gives the same logits for every picture."""
    values = helper.make_tensor("c", TensorProto.FLOAT, [2, len(logits)], logits * 2)
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["logits"], value=values)],
        "constant",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, len(logits)])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = proto.SerializeToString()
    onnx.checker.check_model(data)
    return data


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "refuses"),
        (b"no model at all", "refuses"),
        (constant_model([float("nan")] * 10, ["N", 1, 32, 32]), "finite: False"),
        (constant_model([0.0] * 9, ["N", 1, 32, 32]), r"shape \(2, 9\)"),
        (constant_model([0.0] * 10, ["N", 3, 32, 32]), "self-test"),
    ],
    ids=["empty", "noise", "nan", "wrong classes", "wrong input"],
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
