"""A bundle is whole, signed and what it says it is, or it is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import export as package
from export.bundle import (
    CARD_FILE,
    MANIFEST_FILE,
    MAX_CLASSES_TOLD,
    MODEL_FILE,
    SIGNATURE_FILE,
    Export,
    export_model,
    read_bundle,
    write_bundle,
)
from export.card import card, class_accuracy
from export.errors import BundleError, ExportError
from export.passes.attach_metadata import read_metadata
from protocol.architecture import Architecture, Tensors
from protocol.networks import resnet18
from protocol.precision import Precision
from protocol.signing import SigningKey

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Make = Callable[..., Export]

KEY = SigningKey(bytes(range(32)))
W1A8 = Precision(1, 8)


@pytest.fixture
def exported(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> Make:
    def make(metadata: dict[str, str] | None = None, labels: int | None = 20) -> Export:
        return export_model(
            small,
            W1A8,
            make_tensors(small, W1A8),
            pictures_NCHW=digits[0][:20],
            labels_N=None if labels is None else digits[1][:labels],
            metadata=metadata or {},
        )

    return make


@pytest.fixture
def folder(exported: Make, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", exported({"round": "3"}), KEY.sign)
    return tmp_path / "bundle"


def test_an_export_says_inside_the_file_what_it_is(exported: Make, small: Architecture) -> None:
    made = exported({"round": "3", "base": "ab12", "moments": "W1A8"})
    told = read_metadata(onnx.load_from_string(made.model))
    assert told == made.metadata
    assert told["architecture"] == small.spec
    assert told["precision"] == "W1A8"
    assert (told["round"], told["base"], told["moments"]) == ("3", "ab12", "W1A8")
    assert (told["pictures_checked"], told["bit_equal"]) == ("20", "true")
    assert float(told["accuracy"]) == pytest.approx(made.accuracy)
    assert made.digest == sha256(made.model).hexdigest()


def test_without_labels_there_is_no_accuracy(exported: Make) -> None:
    made = exported(labels=None)
    assert made.accuracy is None
    assert "accuracy" not in made.metadata


def test_every_class_is_rated(exported: Make, digits: Digits) -> None:
    made = exported()
    counts = class_accuracy(made.metadata)
    right = made.report.predictions_N == digits[1][:20]
    for number, (named, shown) in enumerate(counts):
        assert shown == np.count_nonzero(digits[1][:20] == number)
        assert named == np.count_nonzero(right & (digits[1][:20] == number))
    assert sum(named for named, _ in counts) / 20 == made.accuracy


def test_labels_of_no_class_are_wrong_and_of_no_class(make_tensors: MakeTensors, digits: Digits) -> None:
    network = resnet18(width=0.0625, input_shape=(1, 32, 32), classes=3)
    labels_N = np.array([-1, 3, 2, 1])
    tensors = make_tensors(network, W1A8)
    made = export_model(network, W1A8, tensors, pictures_NCHW=digits[0][:4], labels_N=labels_N, metadata={})
    assert [shown for _, shown in class_accuracy(made.metadata)] == [0, 1, 1]
    assert made.accuracy is not None
    assert made.accuracy <= 0.5


def test_of_very_many_classes_only_all_together_are_rated(make_tensors: MakeTensors, digits: Digits) -> None:
    network = resnet18(width=0.0625, input_shape=(1, 32, 32), classes=MAX_CLASSES_TOLD + 1)
    tensors = make_tensors(network, W1A8)
    made = export_model(network, W1A8, tensors, pictures_NCHW=digits[0][:4], labels_N=digits[1][:4], metadata={})
    assert "accuracy" in made.metadata
    assert "class_accuracy" not in made.metadata


def test_the_card_is_not_signed_and_follows_from_the_model(folder: Path) -> None:
    text = (folder / CARD_FILE).read_text()
    assert text == card((folder / MODEL_FILE).read_bytes())
    for change in (lambda path: path.write_text("best model ever"), Path.unlink):  # bundles of before have none
        change(folder / CARD_FILE)
        assert card(read_bundle(folder, KEY.public.verify).model) == text


def test_the_same_export_has_the_same_digest(exported: Make) -> None:
    assert exported().digest == exported().digest


def test_labels_for_other_pictures_are_refused(exported: Make) -> None:
    with pytest.raises(ExportError, match=r"labels have shape \[19\]: expected one per picture, 20"):
        exported(labels=19)


def test_metadata_cannot_overwrite_what_the_exporter_says(exported: Make) -> None:
    with pytest.raises(ExportError, match="metadata key 'precision' is set by the exporter"):
        exported({"precision": "W8A8"})


def test_a_bundle_comes_back_as_it_was_written(folder: Path, exported: Make) -> None:
    bundle = read_bundle(folder, KEY.public.verify)
    assert bundle.model == exported({"round": "3"}).model
    assert bundle.manifest["metadata"]["round"] == "3"
    assert bundle.manifest["model"]["bytes"] == len(bundle.model)
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, MANIFEST_FILE, SIGNATURE_FILE, MODEL_FILE]


def test_a_newer_bundle_takes_the_place_of_the_older(folder: Path, exported: Make) -> None:
    write_bundle(folder, exported({"round": "4"}), KEY.sign)
    assert read_bundle(folder, KEY.public.verify).manifest["metadata"]["round"] == "4"
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE, SIGNATURE_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: No such file"):
        read_bundle(folder, KEY.public.verify)


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE, SIGNATURE_FILE])
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b" ", lambda data: b"\0" + data[1:]])
def test_a_damaged_file_is_refused(folder: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=MODEL_FILE if name == MODEL_FILE else MANIFEST_FILE):
        read_bundle(folder, KEY.public.verify)


def test_another_key_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="signature does not match"):
        read_bundle(folder, SigningKey(bytes(32)).public.verify)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"format": 1, "model": {}}', b"\xff"])
def test_a_signed_file_that_is_no_manifest_is_refused(folder: Path, manifest: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(manifest)
    (folder / SIGNATURE_FILE).write_bytes(KEY.sign(manifest))
    with pytest.raises(BundleError, match="not a manifest"):
        read_bundle(folder, KEY.public.verify)


def test_a_newer_format_is_refused_by_number(folder: Path) -> None:
    manifest = json.dumps(json.loads((folder / MANIFEST_FILE).read_bytes()) | {"format": 2}).encode()
    (folder / MANIFEST_FILE).write_bytes(manifest)
    (folder / SIGNATURE_FILE).write_bytes(KEY.sign(manifest))
    with pytest.raises(BundleError, match="format 2, this side reads 1"):
        read_bundle(folder, KEY.public.verify)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """The kernel refuses bytes beyond a limit on file size, as it would on a full disk, after the first file."""
    (tmp_path / "a").write_bytes(b"old")
    program = """
import resource, signal, sys
from pathlib import Path
from export.files import write_together
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
try:
    write_together({folder / "a": b"new", folder / "b": bytes(100_000)})
except OSError as error:
    print(error.strerror)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(package.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == "File too large"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
