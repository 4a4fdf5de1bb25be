"""`bitfleet-edge measure` as a person meets it: real processes, real models, one line for what went wrong."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from edge_command import COMMAND, ENVIRONMENT, ROOT, edge
from edge_support import SPEC, export, slot_of
from measure_support import document, measured

from edge.cli import main
from edge.measure.document import SCHEMA_FILE, read_document, write_document
from edge.measure.history import read_history
from edge.runtime import Runtime
from edge.state import Journal
from protocol.messages import EnergySource

pytestmark = pytest.mark.long

SHORT = ("--windows", "4", "--seconds", "0.05")


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{precision}.onnx" for precision in ("fp32", "W8A8")]
    for path in paths:
        path.write_bytes(export(precision=path.stem))
    return paths


def test_a_table_a_summary_a_document_and_a_plot(tmp_path: Path, models: list[Path]) -> None:
    out, plot = tmp_path / "run.json", tmp_path / "run.svg"
    told = edge("measure", *models, "--batch", "1,2", *SHORT, "--json", out, "--plot", plot, "--state", tmp_path / "s")
    jsonschema.validate(json.loads(out.read_bytes()), json.loads(SCHEMA_FILE.read_bytes()))
    found = read_document(out)
    labels = [one.label for one in found.subjects]
    assert labels == [f"{precision}, batch {batch}" for precision in ("fp32", "W8A8") for batch in (1, 2)]
    assert "| W8A8, batch 2 | " in told.stdout
    assert "- W8A8, batch 2 against fp32, batch 2: " in told.stdout
    assert "mJ, modelled" in told.stdout
    assert "W8A8, batch 2" in plot.read_text()
    assert not (tmp_path / "s").exists(), "without a device's state there is no birth to carry anything"


def test_the_installed_models_are_measured_and_the_next_birth_carries_them(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path / "models")
    for version, precision in ((1, "fp32"), (2, "W8A8")):
        model = export(precision=precision)
        runtime.install(model, slot_of(model, version, precision))
    Journal.open(tmp_path / "journal")
    told = edge("measure", *SHORT, "--state", tmp_path)
    assert "next birth: W8A8" in told.stdout
    entries = read_history(tmp_path)
    assert [(entry.precision, entry.architecture, entry.flag) for entry in entries] == [
        ("W8A8", SPEC, ""),
        ("fp32", SPEC, ""),
    ]
    assert {entry.source for entry in entries} == {EnergySource.MODELLED}
    chosen = edge("measure", *SHORT, "--precision", "fp32", "--state", tmp_path)
    assert "next birth: fp32" in chosen.stdout
    assert "next birth: W8A8" not in chosen.stdout


def test_a_figure_that_its_own_history_contradicts_is_not_believed_until_it_repeats(
    tmp_path: Path, models: list[Path]
) -> None:
    Journal.open(tmp_path / "journal")
    measure = ("measure", models[1], *SHORT, "--state", tmp_path)
    assert "next birth: W8A8" in edge(*measure).stdout
    path = tmp_path / "measured.json"
    plain = json.loads(path.read_bytes())
    plain["entries"][0]["latency_ms"] *= 1000
    path.write_text(json.dumps(plain))
    told = edge(*measure).stdout
    assert "not believed: W8A8: latency" in told
    assert "where this device's own history says" in told
    assert "next birth: W8A8" in edge(*measure).stdout


def test_training_steps_at_two_precisions(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    train = ("--train", SPEC, "--precision", "fp32,W8A8", "--train-batch", "8")
    edge("measure", *train, *SHORT, "--json", out, "--state", tmp_path)
    assert [one.label for one in read_document(out).subjects] == ["training fp32, batch 8", "training W8A8, batch 8"]


def test_two_runs_of_the_same_model_are_no_difference(tmp_path: Path, models: list[Path]) -> None:
    """On whatever machine this runs, with whatever else it has to do."""
    runs = [tmp_path / "a.json", tmp_path / "b.json"]
    for run in runs:
        edge("measure", models[1], "--windows", "6", "--seconds", "0.2", "--json", run, "--state", tmp_path)
    out = tmp_path / "compared.json"
    assert "no difference" in edge("measure", "--compare", *runs, "--json", out, "--state", tmp_path).stdout
    (compared,) = json.loads(out.read_bytes())["comparisons"]
    assert (compared["first"], compared["verdict"]) == ("W8A8, batch 1", "no difference")
    assert compared["worked"]["low"] <= compared["worked"]["ratio"] <= compared["worked"]["high"]


def test_a_comparison_says_in_what_else_the_runs_differ(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    write_document(paths[0], document(measured([5.0, 5.1, 5.0, 5.1])))
    write_document(paths[1], document(measured([2.5, 2.6, 2.5, 2.6]), complete=False))
    told = edge("measure", "--compare", *paths).stdout
    assert "faster, 1.98× [1.91, 2.05] in processor time (1.98× [1.91, 2.05] in elapsed time)" in told
    assert "the second run was interrupted" in told


def _until(screen: int, shown: Callable[[str], bool]) -> str:
    """What a terminal shows, read until it shows this."""
    seen = ""
    while not shown(seen):
        seen += os.read(screen, 4096).decode(errors="replace")
    return seen


def test_ctrl_c_keeps_what_is_finished_and_says_that_it_is_not_all(tmp_path: Path, models: list[Path]) -> None:
    out = tmp_path / "run.json"
    Journal.open(tmp_path / "journal")
    command = [*COMMAND, "measure", *map(str, models), "--windows", "5000", "--seconds", "0.05", "--json", str(out)]
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [*command, "--state", str(tmp_path)],
        cwd=ROOT,
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        os.close(terminal)
        _until(screen, lambda seen: "window 4 of 5000" in seen)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
    os.close(screen)
    assert process.returncode == 130
    found = read_document(out)
    assert not found.complete
    assert all(len(one.windows) >= 3 for one in found.subjects)
    assert read_history(tmp_path) == [], "half a measurement is for its reader, not for the aggregator"
    assert "interrupted: figures are of the windows finished by then" in told
    assert "| W8A8, batch 1 | " in told


def test_what_is_wrong_is_one_line(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command's own entry point, without a process for each of them."""
    (tmp_path / "not.onnx").write_bytes(b"no model")
    (tmp_path / "cut.json").write_text('{"schema": "bitfleet/mea')
    (tmp_path / "other.json").write_text('{"schema": "bitfleet/measure/9"}')
    write_document(tmp_path / "good.json", document(measured([5.0] * 3)))
    model, good = models[0], tmp_path / "good.json"
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        ((tmp_path / "none.onnx",), "No such file"),
        ((tmp_path / "not.onnx",), "refuses the model"),
        ((), "name ONNX files to measure, or --train SPEC"),
        ((model, "--batch", "0"), "--batch 0: expected whole numbers of 1 to 4096"),
        ((model, "--batch", "1,x"), "--batch 1,x"),
        ((model, "--precision", "W9A9"), "precision W9A9"),
        ((model, "--precision", "W4A8"), "--precision W4A8: the models are fp32"),
        ((model, "--windows", "0"), "--windows 0"),
        ((model, "--seconds", "0"), "--seconds 0"),
        ((model, "--threads", "0"), "--threads 0"),
        ((model, "--json", tmp_path / "none" / "x.json"), "there is no folder"),
        ((model, "--plot", tmp_path / "x.gif"), "expected a name that ends in .svg"),
        (("--train", "resnet99"), "--train resnet99"),
        (("--train", SPEC, "--precision", "W16A32"), "expected one of fp32, W8A8"),
        (("--compare", good, tmp_path / "none.json"), "none.json: No such file"),
        (("--compare", good, tmp_path / "cut.json"), "cut.json: no JSON"),
        (("--compare", tmp_path / "other.json", good), "schema 'bitfleet/measure/9', expected 'bitfleet/measure/1'"),
    ]
    for arguments, message in cases:
        line = ["bitfleet-edge", "measure", *map(str, arguments), "--state", str(tmp_path / "s")]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 1
        assert message in told, arguments
        assert told.strip().count("\n") == 0, told
