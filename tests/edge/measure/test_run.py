"""Real models, a real training step, real clocks; short."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import jsonschema
import pytest
from edge_support import NETWORK, SPEC, export

from edge.measure.document import SCHEMA, SCHEMA_FILE, DocumentError, Plan, read_document, write_document
from edge.measure.model_file import ModelFile
from edge.measure.run import measure, steps_of
from edge.measure.subject import Kind, MeasureError
from edge.measure.training_step import TrainingStep
from edge.meters.modelled import ModelledMeter
from protocol.energy import inference_energy, training_energy_mj
from protocol.messages import EnergySource
from protocol.precision import Precision

PLAN = Plan(windows=4, window_s=0.1, warm_up_s=0.5)


def test_models_and_a_training_step_against_one_another(tmp_path: Path) -> None:
    data = export()
    subjects = [
        ModelFile(export(precision="fp32"), "fp32.onnx", 1),
        ModelFile(data, "w8.onnx", 8),
        TrainingStep(SPEC, "W8A8", 16),
    ]
    told: list[str] = []
    found = measure(subjects, ModelledMeter(), PLAN, told.append)
    assert len(told) == steps_of(PLAN, 3, ModelledMeter()) == 15
    assert found.complete
    assert [one.label for one in found.subjects] == ["fp32, batch 1", "W8A8, batch 8", "training W8A8, batch 16"]
    assert [one.facts.kind for one in found.subjects] == [Kind.INFERENCE, Kind.INFERENCE, Kind.TRAINING]
    assert [one.facts.digest for one in found.subjects][1:] == [sha256(data).hexdigest(), ""]
    for one in found.subjects:
        latency, energy = one.latency, one.energy
        assert latency is not None
        assert energy is not None
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.max_ms
        assert 0 < latency.cpu_p50_ms <= 1.5 * latency.p50_ms
        assert (latency.p99_ms is None) == (latency.samples < 1000)
        assert latency.samples == sum(window.calls for window in one.windows)
        assert [window.turn for window in one.windows] == [0, 1, 2, 3]
        assert energy.source is EnergySource.MODELLED
        assert one.load_ms > 0
    energies = [one.energy.net_mj for one in found.subjects if one.energy]
    per_picture = inference_energy(NETWORK, Precision(8, 8)).total_mj
    assert energies[1:] == pytest.approx([8 * per_picture, training_energy_mj(NETWORK, 16)])
    assert found.conditions.cores >= 1
    assert found.conditions.versions.keys() >= {"python", "numpy", "onnxruntime"}
    assert len(found.yardstick_ms) == 4

    path = tmp_path / "run.json"
    write_document(path, found)
    assert read_document(path) == found
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(SCHEMA_FILE.read_bytes()))


def test_more_than_a_thousand_calls_have_a_99th_percentile() -> None:
    found = measure([ModelFile(export(), "w8.onnx", 1)], ModelledMeter(), Plan(windows=3, window_s=1.5, warm_up_s=0.1))
    latency = found.subjects[0].latency
    assert latency is not None
    assert latency.samples > 1000
    assert latency.p99_ms is not None
    assert latency.p90_ms <= latency.p99_ms <= latency.max_ms


def test_the_schema_knows_every_key_and_no_other(tmp_path: Path) -> None:
    """A key that is added to a dataclass and not to the schema, or the other way round, shows here."""
    schema = json.loads(SCHEMA_FILE.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == SCHEMA
    plain = asdict(measure([ModelFile(export(), "w8.onnx", 1)], ModelledMeter(), Plan(3, 0.01, 0.05)))
    jsonschema.validate(json.loads(json.dumps(plain)), schema)
    window = plain["subjects"][0]["windows"][0]
    for holder in (plain, plain["conditions"], plain["subjects"][0]["facts"], window):
        for key in list(holder):
            value = holder.pop(key)
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(json.loads(json.dumps(plain)), schema)
            holder[key] = value
        holder["stray"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(json.dumps(plain)), schema)
        del holder["stray"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "bitfleet/measure/2"}, "schema 'bitfleet/measure/2', expected 'bitfleet/measure/1'"),
        ({"complete": 1}, "document.complete is '1': expected bool"),
        ({"plan": {"windows": 3}}, "document.plan has no 'window_s'"),
        ({"subjects": [{"label": 5}]}, r"document.subjects\[0\].label is '5': expected str|subjects\[0\] has no"),
        ({"yardstick_ms": [float("nan")]}, r"document.yardstick_ms\[0\] is nan: expected a finite number"),
        ({"yardstick_ms": ["fast"]}, r"document.yardstick_ms\[0\] is 'fast': expected int or float"),
    ],
)
def test_a_document_that_is_none_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "run.json"
    plain = asdict(measure([ModelFile(export(), "w8.onnx", 1)], ModelledMeter(), Plan(1, 0.01, 0.05)))
    path.write_text(json.dumps(plain | change))
    with pytest.raises(DocumentError, match=message):
        read_document(path)


def test_every_prefix_of_a_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_document(path, measure([ModelFile(export(), "w8.onnx", 1)], ModelledMeter(), Plan(1, 0.01, 0.05)))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DocumentError, match="no JSON"):
            read_document(path)


def test_what_cannot_be_measured_says_why() -> None:
    with pytest.raises(MeasureError, match=r"model x\.onnx: ONNX Runtime .* refuses"):
        ModelFile(b"no model", "x.onnx", 1)
    with pytest.raises(MeasureError, match="--train resnet99"):
        TrainingStep("resnet99", "fp32", 8)
    with pytest.raises(MeasureError, match="training at precision 'W16A32': expected one of fp32, W8A8"):
        TrainingStep(SPEC, "W16A32", 8)
    with pytest.raises(DocumentError, match="--windows 0: expected 1 to"):
        Plan(windows=0)


def test_a_step_that_fails_in_the_child_is_told_here() -> None:
    """With this stem the last rows are 1×1: a batch of one has no variance there, and torch refuses."""
    step = TrainingStep("resnet18:width=0.0625,stem=7x7,input=1x32x32,classes=10", "fp32", 1)
    with pytest.raises(MeasureError, match=r"training fp32, batch 1: .*more than 1 value"), step:
        pass
