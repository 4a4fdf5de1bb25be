"""The command as a person or a script meets it: real files in, one clear line out."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from export.batch import ExportJob
from export.bundle import Export, read_bundle
from export.errors import CheckFailed
from export.passes import to_onnx
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.codec.payload import Content, Header, encode
from protocol.networks import cnn4, resnet18
from protocol.precision import FP32, Precision
from protocol.signing import SigningKey

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

W8A8 = Precision(8, 8)
KEY = SigningKey(bytes(range(32)))


@pytest.fixture
def weights(small: Architecture, make_tensors: MakeTensors, tmp_path: Path) -> Write:
    def write(precision: Precision = W8A8, content: Content = Content.WEIGHTS) -> Path:
        header = Header(small.spec, "fp32", str(precision), content, 100)
        path = tmp_path / f"{precision}.bf"
        path.write_bytes(encode(header, make_tensors(small, precision), np.random.default_rng(0)))
        return path

    return write


@pytest.fixture
def npz(digits: Digits, tmp_path: Path) -> Path:
    np.savez(tmp_path / "digits.npz", pictures=digits[0][:30], labels=digits[1][:30])
    return tmp_path / "digits.npz"


def test_without_arguments_the_help_teaches(run: Run) -> None:
    _, out, err = run()
    assert "bitfleet-export model --weights weights.bf" in " ".join((out + err).split())


@pytest.mark.parametrize("command", ["model", "check", "inspect", "card", "nested", "slice"])
def test_every_command_shows_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"bitfleet-export {command}" in out


def test_a_model_is_written_checked_and_inspected(run: Run, weights: Write, npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "w8.onnx"
    code, text, _ = run("model", "--weights", weights(), "--out", out, "--pictures", npz, "--json")
    made = json.loads(text)
    assert code == 0
    assert (made["bytes"], made["bit_equal"], made["pictures_checked"]) == (out.stat().st_size, True, 30)
    assert 0 <= made["accuracy"] <= 1
    code, text, _ = run("check", out, "--weights", weights(), "--json")
    assert code == 0
    assert json.loads(text)["pictures"] == "64 synthetic pictures"
    code, text, _ = run("inspect", out, "--json")
    told = json.loads(text)
    assert code == 0
    assert told["file_bytes"] == out.stat().st_size
    assert told["multiply_adds"] == sum(row["multiply_adds"] for row in told["rows"])
    assert told["metadata"]["checked_on"] == "real"


def test_a_person_sees_tables(run: Run, weights: Write, tmp_path: Path) -> None:
    code, text, _ = run("model", "--weights", weights(), "--out", tmp_path / "w8.onnx")
    assert code == 0
    assert "64 synthetic pictures" in text
    code, text, _ = run("inspect", tmp_path / "w8.onnx")
    assert code == 0
    assert "layer4.1.conv2" in text
    assert "32×32×3×3" in text


@pytest.mark.parametrize("name", ["fp32", "W4A8", "W3A8", "W1A8"])
def test_another_precision_is_quantized_after_training(run: Run, weights: Write, tmp_path: Path, name: str) -> None:
    out = tmp_path / "other.onnx"
    code, text, _ = run("model", "--weights", weights(), "--precision", name, "--out", out, "--json")
    assert code == 0
    assert (json.loads(text)["precision"], json.loads(text)["weights_trained_at"]) == (name, "W8A8")
    code, _, err = run("check", out, "--weights", weights())
    assert (code, err) == (0, "")


def test_a_bundle_is_signed_and_checked_with_its_key(run: Run, weights: Write, tmp_path: Path) -> None:
    key, folder = tmp_path / "key", tmp_path / "bundle"
    key.write_bytes(KEY.raw)
    assert run("model", "--weights", weights(), "--out", folder, "--key", key)[0] == 0
    assert run("check", folder, "--weights", weights(), "--public-key", KEY.public.raw.hex())[0] == 0
    assert run("inspect", folder)[0] == 0
    code, _, err = run("check", folder, "--weights", weights(), "--public-key", bytes(32).hex())
    assert code == 1
    assert "signature does not match" in err


def test_pictures_come_from_folders_of_classes(run: Run, weights: Write, digits: Digits, tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
    for number, (picture, label) in enumerate(zip(digits[0][:20, 0], digits[1], strict=False)):
        Image.fromarray(picture).save(tmp_path / "pictures" / str(label) / f"{number}.png")
    arguments = ("--weights", weights(), "--out", tmp_path / "a.onnx", "--pictures", tmp_path / "pictures", "--json")
    code, text, _ = run("model", *arguments)
    assert code == 0
    assert json.loads(text)["pictures_checked"] == 20
    assert json.loads(text)["accuracy"] is not None


def test_bad_input_is_one_clear_line(run: Run, weights: Write, npz: Path, tmp_path: Path) -> None:
    good, out = weights(), tmp_path / "out.onnx"
    assert run("model", "--weights", good, "--out", tmp_path / "good.onnx")[0] == 0
    (tmp_path / "short.onnx").write_bytes((tmp_path / "good.onnx").read_bytes()[:5000])
    (tmp_path / "short.bf").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat").mkdir()
    (tmp_path / "broken" / "cat").mkdir(parents=True)
    (tmp_path / "broken" / "cat" / "1.png").write_text("hello")
    np.savez(tmp_path / "wrong.npz", pictures=np.zeros((3, 1, 28, 28), np.uint8))
    np.savez(tmp_path / "other.npz", faces=np.zeros((3, 1, 32, 32), np.uint8))
    np.savez(tmp_path / "labels.npz", pictures=np.zeros((3, 1, 32, 32), np.uint8), labels=np.zeros(2, int))
    model = ("model", "--weights", good, "--out", out)
    cases: list[tuple[tuple[object, ...], str]] = [
        (("inspect", tmp_path / "no.onnx"), "no.onnx: No such file or directory"),
        (("inspect", tmp_path / "short.onnx"), "short.onnx: 5000 bytes are no ONNX file"),
        (("inspect", tmp_path / "text"), "text: 5 bytes are no ONNX file"),
        (("check", tmp_path / "short.onnx", "--weights", good), "5000 bytes are no ONNX file"),
        (("check", tmp_path / "good.onnx", "--weights", tmp_path / "text"), "text is no weights file: magic 6865"),
        (("check", tmp_path / "empty", "--weights", good), "empty is a bundle: give --public-key"),
        (("check", tmp_path / "empty", "--weights", good, "--public-key", "xy"), "expected 64 hex digits"),
        (("model", "--weights", tmp_path / "short.bf", "--out", out), "short.bf is no weights file"),
        (("model", "--weights", tmp_path / "no.bf", "--out", out), "no.bf: No such file or directory"),
        (("model", "--weights", good, "--out", tmp_path / "folder"), "give --key, or a name that ends in .onnx"),
        (
            (*model, "--precision", "W4A4"),
            "hold no steps of 4-bit activations: expected a WxA4 file",
        ),
        ((*model, "--precision", "W16A8"), "precision W16A8: the exporter writes fp32 and W1 to W8 with A1, A2"),
        (("slice", tmp_path / "text", "--precision", "W8A8", "--out", out), "text: not a nested model: magic 68656c"),
        (("nested", "--weights", good, "--out", out), "expected one with codes=nested"),
        ((*model, "--precision", "tiny"), "precision 'tiny': expected fp32 or WxAy"),
        ((*model, "--pictures", tmp_path / "no"), "no: no such file or folder"),
        ((*model, "--pictures", tmp_path / "text"), "text is no .npz file of arrays"),
        ((*model, "--pictures", tmp_path / "empty"), "empty: no pictures in folders of classes"),
        ((*model, "--pictures", tmp_path / "broken"), "1.png: not a readable picture"),
        ((*model, "--pictures", tmp_path / "wrong.npz"), "expected uint8[N, 1, 32, 32]"),
        ((*model, "--pictures", tmp_path / "other.npz"), "holds no array named pictures or images or x"),
        ((*model, "--pictures", tmp_path / "labels.npz"), "expected one integer per picture"),
    ]
    for arguments, expected in cases:
        code, text, err = run(*arguments)
        assert (code, text) == (1, ""), arguments
        assert err.startswith("bitfleet-export: ")
        assert err.count("\n") == 1
        assert expected in err
    assert not out.exists()


def test_a_model_from_elsewhere_is_refused(
    run: Run, small: Architecture, make_tensors: MakeTensors, tmp_path: Path
) -> None:
    (tmp_path / "bare.onnx").write_bytes(serialize(to_onnx(small, W8A8, make_tensors(small, W8A8))))
    code, _, err = run("inspect", tmp_path / "bare.onnx")
    assert code == 1
    assert "bare.onnx: the model has no bitfleet metadata" in err


def test_an_update_is_no_model(run: Run, weights: Write, tmp_path: Path) -> None:
    code, _, err = run("model", "--weights", weights(content=Content.DELTA), "--out", tmp_path / "a.onnx")
    assert code == 1
    assert "holds an update's differences: expected the weights of a whole model" in err


def test_float_weights_cannot_lend_activation_steps(run: Run, weights: Write, tmp_path: Path) -> None:
    code, _, err = run("model", "--weights", weights(FP32), "--precision", "W8A8", "--out", tmp_path / "a.onnx")
    assert code == 1
    assert "weights are fp32 and hold no steps of 8-bit activations" in err


def test_weights_that_are_not_finite_are_refused(run: Run, weights: Write, tmp_path: Path) -> None:
    path = weights()
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    code, _, err = run("model", "--weights", path, "--out", tmp_path / "a.onnx")
    assert code == 1
    assert err.count("\n") == 1


def test_a_model_of_another_network_is_refused(
    run: Run, weights: Write, make_tensors: MakeTensors, tmp_path: Path
) -> None:
    other = resnet18(width=0.0625, input_shape=(1, 32, 32), classes=7)
    header = Header(other.spec, "fp32", "W8A8", Content.WEIGHTS, 100)
    (tmp_path / "other.bf").write_bytes(encode(header, make_tensors(other, W8A8), np.random.default_rng(0)))
    assert run("model", "--weights", weights(), "--out", tmp_path / "a.onnx")[0] == 0
    code, _, err = run("check", tmp_path / "a.onnx", "--weights", tmp_path / "other.bf")
    assert code == 1
    assert "classes=7" in err
    assert "classes=10" in err


def test_one_nested_file_serves_every_precision_of_a_file_with_several(
    run: Run, make_tensors: MakeTensors, npz: Path, tmp_path: Path
) -> None:
    network = cnn4(width=0.25, input_shape=(1, 32, 32), nested=True)
    weights, out, sliced = tmp_path / "several.bf", tmp_path / "model.bfn", tmp_path / "w2.onnx"
    header = Header(network.spec, "fp32", "W8A8+W2A2", Content.WEIGHTS, 100)
    tensors = several(network, make_tensors)
    weights.write_bytes(encode(header, tensors, np.random.default_rng(0)))
    code, text, _ = run("nested", "--weights", weights, "--out", out, "--pictures", npz, "--json")
    made = json.loads(text)
    assert code == 0
    assert made["bytes"] == out.stat().st_size
    assert list(made["precisions"]) == ["W8A8", "W2A2"]
    assert all(part["bit_equal"] for part in made["precisions"].values())
    code, text, _ = run("slice", out, "--precision", "W2A2", "--out", sliced, "--json")
    assert code == 0
    assert json.loads(text)["file_serves"] == "W8A8+W2A2"
    code, text, _ = run("check", sliced, "--weights", weights, "--pictures", npz, "--json")
    assert (code, json.loads(text)["bit_equal"]) == (0, True)
    code, text, _ = run("nested", "--weights", weights, "--out", out, "--precisions", "W8A8+W4A8")
    assert code == 0
    assert "W4A8" in text
    code, _, err = run("slice", out, "--precision", "W2A2", "--out", sliced)
    assert code == 1
    assert "precision W2A2: the nested model holds W8A8+W4A8" in err


def several(network: Architecture, make_tensors: MakeTensors) -> Tensors:
    """One model with the profiles of W8A8 and W2A2."""
    wide, narrow = make_tensors(network, W8A8), make_tensors(network, Precision(2, 2))
    return {
        spec.name: (narrow if spec.profile == "W2A2" else wide)[spec.plain_name]
        for spec in network.tensors(W8A8, Precision(2, 2))
    }


def test_two_exports_are_compared_for_a_person_and_for_a_script(
    run: Run, weights: Write, npz: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.onnx" for name in ("w8", "w4")]
    for file, precision in zip(files, ("W8A8", "W4A8"), strict=True):
        assert run("model", "--weights", weights(), "--precision", precision, "--out", file)[0] == 0
    code, text, _ = run("compare", *files, "--pictures", npz, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["pictures_shown"] == 30
    assert found["agreement"] == pytest.approx(1 - len(found["flips"]) / 30)
    code, text, _ = run("compare", *files, "--pictures", npz)
    assert code == 0
    assert "agreement" in text
    assert "as fast" in text
    code, _, err = run("compare", files[0], tmp_path / "none.onnx")
    assert code == 1
    assert err.count("\n") == 1


def test_several_precisions_are_a_folder_of_files(run: Run, weights: Write, npz: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "models", tmp_path / "cache"
    arguments = ("--weights", weights(), "--precision", "W8A8,W4A8, W1A8,W8A8", "--pictures", npz, "--cache", cache)
    code, text, err = run("model", *arguments, "--out", out, "--json")
    made = json.loads(text)
    assert (code, err) == (0, "")
    assert [each["precision"] for each in made["models"]] == ["W8A8", "W4A8", "W1A8"]
    assert sorted(path.name for path in out.iterdir()) == ["W1A8.onnx", "W4A8.onnx", "W8A8.onnx"]
    for each in made["models"]:
        data = Path(each["file"]).read_bytes()
        assert (each["bytes"], each["sha256"], each["bit_equal"]) == (len(data), sha256(data).hexdigest(), True)
    assert len(list(cache.iterdir())) == 3
    single = tmp_path / "w4.onnx"
    assert run("model", "--weights", weights(), "--precision", "W4A8", "--pictures", npz, "--out", single)[0] == 0
    assert single.read_bytes() == (out / "W4A8.onnx").read_bytes()
    code, text, _ = run("model", *arguments, "--out", out)
    assert code == 0
    assert f"{out / 'W1A8.onnx'}: " in text
    assert len(list(cache.iterdir())) == 3


def test_several_precisions_with_a_key_are_a_bundle_each(run: Run, weights: Write, tmp_path: Path) -> None:
    key, out = tmp_path / "key", tmp_path / "bundles"
    key.write_bytes(KEY.raw)
    arguments = ("--weights", weights(), "--precision", "W8A8,W1A8", "--out", out, "--key", key, "--json")
    code, text, _ = run("model", *arguments)
    assert code == 0
    for each, name in zip(json.loads(text)["models"], ("W8A8", "W1A8"), strict=True):
        assert each["file"] == str(out / name / "model.onnx")
        assert read_bundle(out / name, KEY.public.verify).manifest["metadata"]["precision"] == name


def test_several_precisions_do_not_fit_in_one_file(run: Run, weights: Write, tmp_path: Path) -> None:
    out = tmp_path / "models.onnx"
    code, _, err = run("model", "--weights", weights(), "--precision", "W8A8,W1A8", "--out", out)
    assert code == 1
    assert err == f"bitfleet-export: --out {out} is one file for W8A8+W1A8: expected a folder\n"


def test_a_precision_that_fails_is_named_and_the_others_are_written(
    run: Run, weights: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differ(job: ExportJob) -> Export:
        if job.precision == Precision(4, 8):
            raise CheckFailed("layer stem.conv differs")
        return make(job)

    make = ExportJob.make
    monkeypatch.setattr(ExportJob, "make", differ)
    monkeypatch.setattr("export.batch.cores", lambda: 1)
    out = tmp_path / "models"
    code, text, err = run("model", "--weights", weights(), "--precision", "W8A8,W4A8", "--out", out, "--json")
    assert (code, err) == (1, "bitfleet-export: W4A8: layer stem.conv differs\n")
    assert json.loads(text)["failed"] == [{"precision": "W4A8", "error": "W4A8: layer stem.conv differs"}]
    assert [path.name for path in out.iterdir()] == ["W8A8.onnx"]
