"""A card tells what the file tells, and a file from anywhere can make it say only that."""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto
from strategies import SMALL, random_tensors

from export.bundle import export_model
from export.card import card, class_accuracy, licence
from export.errors import ExportError
from export.passes import to_onnx
from export.passes.attach_metadata import attach_metadata
from export.writer import serialize
from protocol.architecture import Architecture, Tensors
from protocol.networks import binary18
from protocol.precision import Precision

MakeTensors = Callable[[Architecture, Precision], Tensors]
Digits = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
W4A8 = Precision(4, 8)
TOLD = {"architecture": SMALL.spec, "precision": "W4A8"}


@pytest.fixture(scope="module")
def bare() -> ModelProto:
    return to_onnx(SMALL, W4A8, random_tensors(SMALL, W4A8))


def test_a_card_tells_what_the_model_is(small: Architecture, make_tensors: MakeTensors, digits: Digits) -> None:
    made = export_model(
        small,
        W4A8,
        make_tensors(small, W4A8),
        pictures_NCHW=digits[0][:20],
        labels_N=digits[1][:20],
        metadata={"round": "7", "fleet": "greenhouse", "moments": "pooled at W4A8", "checked_on": "real"},
    )
    text = card(made.model)
    for expected in (
        "# An image classifier at W4A8\n",
        f"| architecture | `{small.spec}` |",
        "| precision | W4A8: 4-bit weights, 8-bit activations |",
        f"| file | {len(made.model):,} bytes, SHA-256 `{sha256(made.model).hexdigest()}` |",
        "| round | 7 of fleet greenhouse |",
        "| calibration | moments of the devices, pooled at W4A8 |",
        "On 20 real pictures its logits were equal in every bit to those of the reference implementation.",
        "It tells 10 classes apart.",
        f"{made.accuracy:.2%} of the pictures checked are named rightly.",
        "Standard ONNX: ",
        "uint8[N, 1, 32, 32]",
        f"bitfleet, which wrote this file, is under {licence()}.",
    ):
        assert expected in text
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| .* \|$", text, re.MULTILINE)
    assert [(int(right), int(shown)) for _, right, shown in rows] == class_accuracy(made.metadata)
    assert "defined in the file" not in text


def test_operators_of_our_own_are_named(make_tensors: MakeTensors, digits: Digits) -> None:
    network, precision = binary18(width=0.125, input_shape=(1, 32, 32)), Precision(1, 1)
    tensors = make_tensors(network, precision)
    text = card(export_model(network, precision, tensors, pictures_NCHW=digits[0][:2], metadata={}).model)
    assert "bitfleet.BinaryConv" in text
    assert "defined in the file as functions of standard operators" in text
    assert "Not rated: the pictures had no labels." in text
    assert "not told: exported by hand" in text


@pytest.mark.parametrize(
    ("moments", "told"),
    [
        ("calibrated", "after training: steps and moments set from pictures"),
        ("W4A8", "steps and moments are those of training at this precision"),
        ("W8A8", "none: steps and moments are lent by W8A8"),
    ],
)
def test_calibration_is_told(bare: ModelProto, moments: str, told: str) -> None:
    text = card(serialize(attach_metadata(bare, TOLD | {"moments": moments})))
    assert f"| calibration | {told} |" in text


@given(
    facts=st.dictionaries(
        st.sampled_from(["round", "fleet", "moments", "checked_on", "pictures_checked", "version"]),
        st.text(max_size=300),
    )
)
def test_foreign_words_stay_in_their_place(bare: ModelProto, facts: dict[str, str]) -> None:
    try:
        model = serialize(attach_metadata(bare, TOLD | facts))
    except UnicodeEncodeError:  # a lone surrogate is in no file
        return
    usual = card(serialize(attach_metadata(bare, TOLD | {"pictures_checked": "1"}))).splitlines()
    lines = card(model).split("\n")
    assert len(lines) == len(usual) + 1
    assert [line for line in lines if line.startswith("#")] == [line for line in usual if line.startswith("#")]
    assert all(line.isprintable() for line in lines)
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines if line.startswith("| "))


@given(text=st.text(alphabet="0123456789/ x²\n", max_size=60))
def test_any_text_is_counts_or_refused(text: str) -> None:
    try:
        counts = class_accuracy({"class_accuracy": text})
    except ExportError:
        return
    assert " ".join(f"{right}/{shown}" for right, shown in counts).split() == [
        "/".join(str(int(part)) for part in each.split("/")) for each in text.split()
    ]
    assert all(0 <= right <= shown for right, shown in counts)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"accuracy": "good"}, "metadata accuracy = 'good': expected a number from 0 to 1"),
        ({"accuracy": "nan"}, "metadata accuracy = 'nan': expected a number from 0 to 1"),
        ({"class_accuracy": "3/2"}, "expected no class with more right than there are"),
        ({"class_accuracy": "3"}, "expected right/all of every class"),
        ({"architecture": "toaster"}, "the model's metadata"),
    ],
)
def test_figures_that_are_none_are_refused(bare: ModelProto, facts: dict[str, str], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        card(serialize(attach_metadata(bare, TOLD | facts)))


def test_a_card_is_printed_or_written(
    run: Callable[..., tuple[int, str, str]], bare: ModelProto, tmp_path: Path
) -> None:
    model, out = tmp_path / "w4.onnx", tmp_path / "cards" / "w4.md"
    model.write_bytes(serialize(attach_metadata(bare, TOLD)))
    code, text, _ = run("card", model)
    assert (code, text) == (0, card(model.read_bytes()))
    assert run("card", model, "--out", out)[:2] == (0, "")
    assert out.read_text() == text
    model.write_bytes(b"onnx")
    code, _, err = run("card", model)
    assert (code, err.count("\n")) == (1, 1)
    assert "w4.onnx: 4 bytes are no ONNX file" in err
