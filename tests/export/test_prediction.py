"""What a picture takes: measured where it was, predicted from the nearest that was, modelled where nothing was."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_command import edge
from hypothesis import given
from hypothesis import strategies as st
from measure_support import document, measured
from strategies import SMALL, random_tensors

from edge.measure.document import Document, Measured
from edge.measure.energy import CallEnergy
from export.bundle import export_model
from export.errors import ExportError
from export.measured import Measurement, read_measured
from export.prediction import Figure, Source, predict
from protocol.energy import bops, inference_energy
from protocol.messages import EnergySource
from protocol.networks import cnn4, resnet18
from protocol.precision import FP32, Precision

Run = Callable[..., tuple[int, str, str]]
W8A8, W4A8, W1A8 = Precision(8, 8), Precision(4, 8), Precision(1, 8)
LARGER = resnet18(width=0.125, input_shape=(1, 8, 8), classes=3)


def metered(one: Measured, gross_mj: float | None) -> Measured:
    return replace(one, energy=CallEnergy(EnergySource.MEASURED, gross_mj, None, None, None, ""))


def written(found: Document) -> bytes:
    return json.dumps(asdict(found)).encode()


def measurement(precision: Precision, latency_ms: float | None, **changes: Any) -> Measurement:
    return replace(Measurement(str(precision), SMALL, precision, 1, latency_ms, None), **changes)


def model(precision: Precision) -> bytes:
    pictures_NCHW = np.zeros((1, 1, 8, 8), np.uint8)
    tensors = random_tensors(SMALL, precision)
    return export_model(SMALL, precision, tensors, pictures_NCHW=pictures_NCHW, metadata={}).model


def test_a_document_is_read_for_one_picture() -> None:
    one = metered(measured([2.0], label="a", batch=4), 6.0)
    resting = replace(measured([], label="b"), energy=None)
    read = read_measured(written(document(one, resting, measured([3.0], label="c", kind="training"))))
    assert [(each.label, each.batch, each.latency_ms, each.energy_mj) for each in read] == [
        ("a", 4, 0.5, 1.5),
        ("b", 1, None, None),
    ]


def test_modelled_energy_of_a_document_is_not_taken_for_measured() -> None:
    (read,) = read_measured(written(document(measured([2.0]))))
    assert (read.latency_ms, read.energy_mj) == (2.0, None)
    assert predict(read.architecture, W8A8, [read]).energy_mj.source is Source.MODELLED


def test_without_a_measurement_energy_is_the_models_and_latency_unknown() -> None:
    found = predict(SMALL, W4A8)
    assert found.latency_ms is None
    assert (found.energy_mj.value, found.energy_mj.source) == (inference_energy(SMALL, W4A8).total_mj, "modelled")


def test_the_same_precision_is_measured_and_its_smallest_batch_counts() -> None:
    several = [measurement(W4A8, 1.0, batch=8), measurement(W4A8, 3.0, label="alone"), measurement(W8A8, 9.0)]
    assert predict(SMALL, W4A8, several).latency_ms == Figure(3.0, Source.MEASURED, "alone")


def test_all_integer_precisions_run_the_same_kernels() -> None:
    several = [measurement(FP32, 50.0), measurement(W8A8, 8.0), measurement(W4A8, 4.0, architecture=LARGER)]
    found = predict(SMALL, W4A8, several).latency_ms
    assert found == Figure(8.0, Source.PREDICTED, "W8A8, times 1 as the same kernels run")


@pytest.mark.parametrize("precision", [W8A8, Precision(1, 1)], ids=str)
def test_another_arithmetic_is_scaled_by_bit_operations(precision: Precision) -> None:
    found = predict(SMALL, precision, [measurement(FP32, 50.0)]).latency_ms
    assert found is not None
    assert found.source is Source.PREDICTED
    assert found.value == pytest.approx(50.0 * bops(SMALL, precision) / bops(SMALL, FP32))
    assert found.basis.endswith("by bit operations")


def test_another_network_is_scaled_by_multiply_adds_at_the_same_precision_alone() -> None:
    found = predict(SMALL, W4A8, [measurement(W4A8, 4.0, architecture=LARGER)]).latency_ms
    assert found is not None
    assert found.value == pytest.approx(4.0 * bops(SMALL, W8A8) / bops(LARGER, W8A8), rel=0.01)
    assert found.basis.endswith("by multiply-adds")
    assert predict(SMALL, W4A8, [measurement(W8A8, 4.0, architecture=LARGER)]).latency_ms is None


def test_latency_and_energy_may_rest_on_different_measurements() -> None:
    found = predict(SMALL, W4A8, [measurement(W4A8, 4.0), measurement(W8A8, None, energy_mj=2.0)])
    assert found.latency_ms == Figure(4.0, Source.MEASURED, "W4A8")
    assert found.energy_mj.source is Source.PREDICTED


def test_inspect_tells_what_a_device_measured(run: Run, tmp_path: Path) -> None:
    """A real run of the agent's command, on a model of ours."""
    file, other, out = tmp_path / "w8.onnx", tmp_path / "w1.onnx", tmp_path / "run.json"
    file.write_bytes(model(W8A8))
    other.write_bytes(model(W1A8))
    edge("measure", file, "--windows", "4", "--seconds", "0.05", "--json", out, "--state", tmp_path / "state")
    p50_ms = json.loads(out.read_text())["subjects"][0]["latency"]["p50_ms"]
    told = json.loads(run("inspect", file, "--measured", out, "--json")[1])
    assert told["latency_ms"] == {"value": p50_ms, "source": "measured", "basis": "W8A8, batch 1"}
    assert told["energy_mj"]["source"] == "modelled"
    told = json.loads(run("inspect", other, "--measured", out, "--json")[1])
    assert told["latency_ms"]["source"] == "predicted"
    assert told["latency_ms"]["value"] == p50_ms
    code, text, _ = run("inspect", other, "--measured", out)
    assert code == 0
    assert "predicted (W8A8, batch 1, times 1 as the same kernels run)" in text
    assert json.loads(run("inspect", file, "--json")[1])["latency_ms"] is None
    assert "not known: give --measured" in run("inspect", file)[1]


def test_what_compares_with_nothing_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "w8.onnx").write_bytes(model(W8A8))
    (tmp_path / "run.json").write_bytes(written(document(measured([1.0], architecture=cnn4().spec, precision="fp32"))))
    code, _, err = run("inspect", tmp_path / "w8.onnx", "--measured", tmp_path / "run.json")
    assert code == 1
    assert err.startswith(f"bitfleet-export: {tmp_path / 'run.json'}: measured nothing that compares with {SMALL.spec}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (["schema"], "bitfleet/measure/2", "schema is 'bitfleet/measure/2': expected 'bitfleet/measure/1'"),
        (["subjects"], {}, "subjects is {}: expected list"),
        (["subjects", 0], 7, "subjects[0].facts is missing: expected dict"),
        (["subjects", 0, "facts", "batch"], 0, "subjects[0].facts.batch is 0: expected a number of pictures"),
        (["subjects", 0, "facts", "batch"], True, "subjects[0].facts.batch is True: expected int"),
        (["subjects", 0, "facts", "precision"], "W9", "subjects[0].facts: precision 'W9'"),
        (["subjects", 0, "facts", "architecture"], "toaster", "subjects[0].facts: "),
        (["subjects", 0, "latency"], [], "subjects[0].latency is []: expected dict"),
        (["subjects", 0, "latency", "p50_ms"], -1, "subjects[0].latency.p50_ms is -1: expected a number from 0"),
        (["subjects", 0, "latency", "p50_ms"], float("nan"), "p50_ms is nan: expected a number from 0"),
        (["subjects", 0, "latency", "p50_ms"], 10**400, "p50_ms is 1000"),
        (["subjects", 0, "latency", "p50_ms"], "fast", "p50_ms is 'fast': expected"),
    ],
)
def test_a_value_that_is_none_is_named_with_its_place(where: list[Any], value: object, told: str) -> None:
    whole = json.loads(written(document(measured([1.0]))))
    holder = whole
    for step in where[:-1]:
        holder = holder[step]
    holder[where[-1]] = value
    with pytest.raises(ExportError) as refused:
        read_measured(json.dumps(whole))
    assert told in str(refused.value)
    assert len(str(refused.value)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    whole = json.loads(written(document(metered(measured([1.0]), 2.0))))
    holder: Any = whole
    while True:
        step = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        inner = holder[step]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        holder = inner
    holder[step] = data.draw(JSON)
    try:
        read = read_measured(json.dumps(whole))
    except ExportError:
        return
    for each in read:
        found = predict(each.architecture, each.precision, read)
        assert found.energy_mj.value >= 0


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_refused(raw: bytes) -> None:
    with pytest.raises(ExportError):
        read_measured(raw)
