"""From a stranger's checkpoint to a checked integer model, on the command line and with pictures it never saw."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from foreign_resnet import DEVIATION, MEAN, logits, normalised, trained

Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Run = Callable[..., tuple[int, str, str]]

TRAINING = 1300
NORMALIZE = f"{MEAN}/{DEVIATION}"
MOST_LOST = 0.005
"""Half a point, of what the network gets right at full precision."""


@dataclass(frozen=True)
class Case:
    """A network trained in torch, and its pictures in two files."""

    checkpoint: Path
    training: Path
    test: Path
    accuracy: float
    parameters: int


@pytest.fixture(scope="session")
def case(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("foreign")
    pictures, labels = digits
    network = trained(pictures[:TRAINING], labels[:TRAINING], epochs=4, width=8)
    torch.save({"state_dict": network.state_dict(), "epoch": 4}, folder / "net.pth")
    np.savez(folder / "training.npz", pictures=pictures[:TRAINING])
    np.savez(folder / "test.npz", pictures=pictures[TRAINING:], labels=labels[TRAINING:])
    named = logits(network, normalised(pictures[TRAINING:])).argmax(axis=1)
    accuracy = float((named == labels[TRAINING:]).mean())
    parameters = sum(values.numel() for values in network.parameters())
    return Case(folder / "net.pth", folder / "training.npz", folder / "test.npz", accuracy, parameters)


@pytest.fixture
def adopted(case: Case, run: Run, tmp_path: Path) -> Path:
    out = tmp_path / "adopted.bf"
    code, text, err = run("adopt", case.checkpoint, "--normalize", NORMALIZE, "--out", out, "--json")
    assert code == 0, err
    facts = json.loads(text)
    assert facts["architecture"] == "resnet18:width=0.125,stem=3x3,input=1x32x32,classes=10,zero=76"
    assert (facts["read_as"], facts["layers"], facts["parameters"]) == ("torch checkpoint", 21, case.parameters)
    assert (facts["classifier"], facts["border_share"]) == ("as trained", pytest.approx(124 / 1024))
    return out


def test_w8a8_loses_at_most_half_a_point(case: Case, adopted: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "w8.onnx"

    def exported(*options: object) -> dict[str, Any]:
        code, text, err = run("model", "--weights", adopted, "--pictures", case.test, "--out", out, "--json", *options)
        assert code == 0, err
        facts: dict[str, Any] = json.loads(text)
        return facts

    floats, made = exported(), exported("--precision", "W8A8", "--calibrate", case.training)
    assert made["bit_equal"]
    assert case.accuracy > 0.9
    assert floats["accuracy"] >= case.accuracy - MOST_LOST  # the border
    assert made["accuracy"] >= floats["accuracy"] - MOST_LOST  # the integers
    code, _, err = run("check", out, "--weights", adopted, "--calibrate", case.training, "--pictures", case.test)
    assert code == 0, err
    code, _, err = run("check", out, "--weights", adopted)
    assert code == 1
    assert "hold no steps of 8-bit activations: expected a WxA8 file, or pictures to --calibrate with" in err


def test_a_calibrated_file_exports_the_same_model(case: Case, adopted: Path, run: Run, tmp_path: Path) -> None:
    kept, direct, later = tmp_path / "w4.bf", tmp_path / "direct.onnx", tmp_path / "later.onnx"
    code, text, err = run(
        "calibrate", "--weights", adopted, "--precision", "W4A8", "--pictures", case.training, "--out", kept, "--json"
    )
    assert code == 0, err
    assert json.loads(text)["pictures_seen"] == 256
    run("model", "--weights", adopted, "--precision", "W4A8", "--calibrate", case.training, "--out", direct)
    run("model", "--weights", kept, "--out", later)
    code, _, err = run("check", direct, "--weights", kept)
    assert code == 0, err
    code, text, _ = run("compare", direct, later, "--pictures", case.test, "--json")
    assert code == 0


def test_a_person_reads_what_was_recognised(case: Case, run: Run, tmp_path: Path) -> None:
    code, text, _ = run("adopt", case.checkpoint, "--normalize", NORMALIZE, "--classes", 4, "--out", tmp_path / "a.bf")
    assert code == 0
    assert "resnet18:width=0.125,stem=3x3,input=1x32x32,classes=4" in text
    assert "12.1% of the first layer's outputs" in text
    assert "fresh" in text


def test_how_pictures_were_normalised_must_be_said(case: Case, run: Run, tmp_path: Path) -> None:
    code, _, err = run("adopt", case.checkpoint, "--out", tmp_path / "a.bf")
    assert code == 2
    assert "--normalize" in err


@pytest.mark.parametrize("text", ["32", "3x32", "3x32x32x1", "ax32x32", "1x32x99999999", "1x-3x3", "1x²x3"])
def test_a_wrong_input_is_named(case: Case, run: Run, tmp_path: Path, text: str) -> None:
    code, _, err = run("adopt", case.checkpoint, "--normalize", "none", "--input", text, "--out", tmp_path / "a.bf")
    assert code == 1
    assert f"--input {text!r}: expected CxHxW" in err


def test_what_is_refused_names_file_and_layers(run: Run, tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "bert.pt")
    code, _, err = run("adopt", tmp_path / "bert.pt", "--normalize", "none", "--out", tmp_path / "a.bf")
    assert code == 1
    assert "bert.pt: no conv1.weight: expected a ResNet18 as torchvision and timm name its layers; found encoder" in err
    assert not (tmp_path / "a.bf").exists()
    code, _, err = run("adopt", tmp_path / "gone.pt", "--normalize", "none", "--out", tmp_path / "a.bf")
    assert (code, "gone.pt: No such file" in err) == (1, True)
