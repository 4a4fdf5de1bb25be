"""The next model takes over between two batches; until it is ready the one before answers."""

from pathlib import Path

import pytest
from edge_support import export, slot_of
from mqtt_client import eventually

from edge.inference.models import Following
from edge.runtime import NoModel, Runtime


def test_the_model_before_serves_until_the_next_is_ready(tmp_path: Path) -> None:
    agent, models = Runtime(tmp_path), [export(seed) for seed in range(2)]
    agent.install(models[0], slot_of(models[0], 1))
    told: list[str] = []
    with Following(Runtime.restore(tmp_path)[0], told.append) as following:
        assert following().slot.version == 1
        agent.install(models[1], slot_of(models[1], 2))
        assert following().slot.version == 1
        eventually(lambda: following().slot.version == 2, "version 2")
        agent.rollback()
        eventually(lambda: following().slot.version == 1, "version 1 again")
    assert told == []


def test_what_does_not_load_is_told_once_and_the_model_stays(tmp_path: Path) -> None:
    agent, models = Runtime(tmp_path), [export(seed) for seed in range(3)]
    agent.install(models[0], slot_of(models[0], 1))
    told: list[str] = []
    with Following(Runtime.restore(tmp_path)[0], told.append) as following:
        agent.install(models[1], slot_of(models[1], 2))
        (tmp_path / f"{slot_of(models[1]).digest}.onnx").write_bytes(b"")
        eventually(lambda: following() and told, "a note")
        assert following().slot.version == 1
        agent.install(models[2], slot_of(models[2], 3))
        eventually(lambda: following().slot.version == 3, "version 3")
    assert len(told) == 1
    assert "damaged" in told[0]
    assert "version 1 stays in use" in told[0]


def test_without_a_model_there_is_nothing_to_follow_with(tmp_path: Path) -> None:
    with Following(Runtime.restore(tmp_path)[0], print) as following, pytest.raises(NoModel):
        following()
