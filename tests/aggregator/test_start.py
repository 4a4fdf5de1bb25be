"""A fleet that starts from weights instead of from nothing."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fleet import JOB, STRAIGHT, Fleet
from strategies import SMALL, random_tensors

from aggregator import versions
from aggregator.config import ConfigError, load
from aggregator.model import GlobalModel
from aggregator.start import StartError, starting_model
from aggregator.store import Model
from aggregator.versions import JobMismatch
from protocol.architecture import Role
from protocol.codec.payload import Content, Header, decode, encode
from protocol.precision import FP32, Precision, join

W8A8, W4A8 = Precision(8, 8), Precision(4, 8)


def weights_file(folder: Path, *precisions: Precision, content: Content = Content.WEIGHTS) -> Path:
    path = folder / "weights.bf"
    header = Header(SMALL.spec, "fp32", join(precisions), content, pictures=100)
    path.write_bytes(encode(header, random_tensors(SMALL, *precisions), np.random.default_rng(0)))
    return path


def test_version_0_is_the_files_tensors_in_every_bit(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32)
    fleet = Fleet(tmp_path, start=path)
    (row,) = fleet.rows(Model)
    model = versions.load(fleet.room, row)
    held = decode(path.read_bytes()).tensors
    assert row.precisions == ["fp32"]
    assert {name: values.tobytes() for name, values in model.tensors(FP32).items()} == {
        name: values.tobytes() for name, values in held.items()
    }


def test_every_profile_of_a_file_is_kept_apart(tmp_path: Path) -> None:
    path = weights_file(tmp_path, W8A8, W4A8)
    model, held = starting_model(path), decode(path.read_bytes()).tensors
    assert sorted(model.profiles) == ["W4A8", "W8A8"]
    for name, values in model.tensors(W8A8, W4A8).items():
        np.testing.assert_array_equal(values, held[name])


def test_devices_start_from_it_measure_their_steps_and_move_it(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32)
    fleet = Fleet(tmp_path, start=path)
    (device,) = fleet.connected("pi-1")
    fleet.run()
    offer = device.offer()
    base, held = decode(fleet.room.blobs.get(offer.base.hex())).tensors, decode(path.read_bytes()).tensors
    shared = [spec for spec in SMALL.tensors(FP32) if spec.role is Role.WEIGHT or spec.role is Role.MEAN]
    assert all(np.array_equal(base[spec.name], held[spec.name]) for spec in shared)
    assert offer.calibrate_steps
    device.upload(offer, device.train(offer))
    assert fleet.accepted() == ["pi-1"]
    fleet.run()
    assert fleet.states(1) == STRAIGHT
    first, second = (versions.load(fleet.room, row) for row in fleet.rows(Model))
    moved = second.shared["stem.conv.weight"] - first.shared["stem.conv.weight"]
    assert 0 < np.abs(moved).max() < 0.1
    assert set(second.profiles) == {"fp32", offer.precision}


def test_a_fleet_that_has_begun_does_not_look_again(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32)
    fleet = Fleet(tmp_path, start=path)
    digest = fleet.rows(Model)[0].digest
    path.unlink()
    fleet.restart()
    assert [row.digest for row in fleet.rows(Model)] == [digest]
    assert sha256(fleet.room.blobs.get(digest)).hexdigest() == digest


def test_weights_of_another_network_are_refused_with_both_names(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32)
    job = replace(JOB, architecture=JOB.architecture.replace("classes=3", "classes=4"))
    with pytest.raises(JobMismatch, match=r"classes=4.*weights\.bf holds .*classes=3.*leave the architecture out"):
        Fleet(tmp_path, job, start=path)


def test_more_profiles_than_one_payload_carries_are_refused(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32, *(Precision(bits, 8) for bits in (1, 2, 3, 4)))
    job = replace(JOB, precisions=tuple(Precision(bits, 4) for bits in (1, 2, 3, 4)))
    with pytest.raises(JobMismatch, match=r"9 together.*at most 8"):
        Fleet(tmp_path, job, start=path)


def test_what_is_no_weights_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.bf").write_text("hello")
    with pytest.raises(StartError, match=r"notes\.bf is no weights file"):
        starting_model(tmp_path / "notes.bf")
    with pytest.raises(StartError, match="update's differences"):
        starting_model(weights_file(tmp_path, W8A8, content=Content.DELTA))
    with pytest.raises(StartError, match=r"nothing\.bf': No such file"):
        starting_model(tmp_path / "nothing.bf")


def test_the_architecture_may_be_left_to_the_file(tmp_path: Path) -> None:
    path = weights_file(tmp_path, FP32)
    config = load(environment={}, overrides={"start": path})
    assert (config.start, config.job.architecture) == (path, SMALL.spec)
    (tmp_path / "fleet.toml").write_text(f'start = "{path}"\n[job]\nrounds = 3\n')
    assert load(tmp_path / "fleet.toml", environment={}).job.network == SMALL
    with pytest.raises(ConfigError, match=r"gone\.bf': No such file.*--architecture"):
        load(environment={}, overrides={"start": tmp_path / "gone.bf"})


def test_a_model_survives_as_a_file_and_back(tmp_path: Path) -> None:
    model = starting_model(weights_file(tmp_path, FP32, W8A8))
    assert GlobalModel.from_bytes(model.to_bytes()).to_bytes() == model.to_bytes()
