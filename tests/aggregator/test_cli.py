"""The command line against a real door: what it prints, for people and for scripts, and how it fails."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from strategies import SMALL
from typer.testing import CliRunner

from aggregator.app import build_app, serve_http
from aggregator.cli import app
from aggregator.client import DEFAULT_URL, Client, ClientError, find
from aggregator.desk import Desk
from aggregator.secret_files import admin_token
from aggregator.state_dir import Endpoint, write_endpoint
from aggregator.tables import size
from export.check import check
from export.pictures import synthetic
from export.weights import load_weights

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "serve",
    "token",
    "tokens",
    "group",
    "applicants",
    "approve",
    "reject",
    "user",
    "audit",
    "status",
    "devices",
    "rounds",
    "energy",
    "models",
    "export",
    "explain",
]
COMMANDS += ["mixed", "budget", "revoke", "quarantine", "release", "pause", "resume", "abort", "open"]


def run_at_once(run: Callable[[], Any], patience_s: float = 0.0) -> Any:
    return run()


@pytest.fixture
def state(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """The state directory of an aggregator whose two devices have trained a round."""
    one, two = fleet.connected("pi-1", "pi-2")
    fleet.until("collecting")
    one.deliver_update()
    two.deliver_update()
    fleet.run()
    folder = tmp_path / "state"
    folder.mkdir()
    desk = Desk(
        room=fleet.room,
        submit=run_at_once,
        connected=lambda: True,
        admin_token=admin_token(folder),
        open_reads=False,
        broker_for=lambda host: f"mqtt://{host}:1883",
    )
    with ExitStack() as stack:
        url = stack.enter_context(serve_http(build_app(desk), "127.0.0.1", 0))
        write_endpoint(folder, Endpoint(url, "mqtt://127.0.0.1:1883", "00" * 32))
        yield folder


def said(state: Path, *arguments: str) -> str:
    """What a command prints."""
    environment = {"BITFLEET_STATE": str(state), "BITFLEET_URL": "", "BITFLEET_TOKEN": "", "COLUMNS": "200"}
    result = CliRunner().invoke(app, [*arguments], env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(state: Path, *arguments: str) -> Any:
    """What a command says to a script."""
    return json.loads(said(state, *arguments, "--json"))


def failed(*arguments: str, **environment: str) -> str:
    """The one line of a command that fails."""
    command = [sys.executable, "-c", "from aggregator.cli import main; main()", *arguments]
    surroundings = {**os.environ, "BITFLEET_URL": "", "BITFLEET_TOKEN": "", **environment}
    result = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_status_names_round_devices_and_broker(state: Path) -> None:
    text = said(state, "status")
    assert "test: round 1 of 1, announced; model 1; 2 of 2 devices online; broker mqtt://127.0.0.1:1883" in text
    assert told(state, "status")["round"] == 1


def test_devices_are_listed(state: Path) -> None:
    assert "pi-2" in said(state, "devices")
    assert [device["id"] for device in told(state, "devices")] == ["pi-1", "pi-2"]


def test_rounds_are_listed_with_what_was_saved(state: Path) -> None:
    assert "2 accepted" in said(state, "rounds")
    (row,) = told(state, "rounds")
    assert row["update_fp32_bytes"] > 20 * row["update_bytes"]


def test_where_the_joules_went_is_told_by_device_and_purpose(state: Path) -> None:
    text = said(state, "energy", "--round", "1")
    assert "training, mJ" in text
    assert "mJ in all" in text
    assert "~2" in text, "what devices only modelled"
    ledger = told(state, "energy", "--device", "pi-1")
    assert {entry["device"] for entry in ledger["entries"]} == {"pi-1"}
    assert ledger["total_mj"] > 0


def test_the_newest_models_can_be_fetched(state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    assert "W8A8" in said(state, "models", "--download", str(folder))
    newest = told(state, "models")[0]
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")}
    assert files == {f"model-1-{export['precision']}.onnx": export["digest"] for export in newest["exports"]}


def test_the_weights_that_are_fetched_are_those_of_the_model(state: Path, tmp_path: Path) -> None:
    """What `bitfleet-export check` needs to check the file again."""
    said(state, "models", "--download", str(tmp_path))
    weights = load_weights(tmp_path / "weights-1.bf")
    pictures = synthetic(weights.architecture).pictures_NCHW
    for precision in weights.precisions:
        model = (tmp_path / f"model-1-{precision}.onnx").read_bytes()
        assert check(model, weights.architecture, precision, weights.at(precision), pictures).bit_equal


def test_a_precision_is_explained_in_a_sentence_and_in_figures(state: Path) -> None:
    text = said(state, "explain", "pi-1")
    assert "pi-1 runs W8A8: W8A8 is the best it can run" in text
    assert "modelled" in text
    assert told(state, "explain", "pi-1")["decision"]["needs"][0]["precision"] == "W8A8"


def test_a_budget_of_nothing_is_shown_as_such_and_mains_lifts_it(state: Path) -> None:
    said(state, "budget", "pi-1", "0")
    text = said(state, "explain", "pi-1")
    assert "nothing fits 0 J/day" in text
    assert "its limits cannot be kept; the smallest budget that works is " in text
    said(state, "budget", "pi-1", "mains")
    assert "mains" in said(state, "devices")
    assert told(state, "explain", "pi-1")["feasible"] is True
    wrong = CliRunner().invoke(app, ["budget", "pi-1", "much", "--state", str(state)])
    assert wrong.exit_code == 2
    assert "expected joules per day, or mains" in wrong.output


def test_bits_are_planned_layer_by_layer(tmp_path: Path) -> None:
    file = tmp_path / "sensitivities.json"
    layers = [layer.name for layer in SMALL.layers if layer.weight_shape is not None and not layer.pinned]
    loss = {name: {"8": 0.001, "2": 0.1 * number} for number, name in enumerate(layers, 1)}
    file.write_text(json.dumps({"architecture": SMALL.spec, "loss": loss}))
    runner = CliRunner()
    plain = runner.invoke(app, ["mixed", str(file)])
    assert "nothing within the limits loses less" in " ".join(plain.stdout.split())
    whole = json.loads(runner.invoke(app, ["mixed", str(file), "--json"]).stdout)
    assert set(whole["bits"].values()) == {8}
    less = ["mixed", str(file), "--json", "--bytes", str(0.9 * whole["weight_bytes"])]
    found = json.loads(runner.invoke(app, less).stdout)
    assert found["weight_bytes"] <= 0.9 * whole["weight_bytes"]
    assert set(found["bits"].values()) == {2, 8}
    assert "no selection keeps" in failed("mixed", str(file), "--bytes", "1")
    file.write_text("{}")
    assert failed("mixed", str(file)).startswith("error: sensitivities: KeyError('loss')")


def test_a_token_is_printed_alone_so_that_a_script_can_take_it(state: Path, fleet: Fleet) -> None:
    text = said(state, "token", "--uses", "2", "--ttl", "60", "--note", "two boards")
    assert len(text.split()) == 1
    assert told(state, "token")["token"] != text.strip()


def test_tokens_are_listed_without_their_secrets_and_can_be_revoked(state: Path) -> None:
    secret = said(state, "token", "--uses", "2", "--group", "kitchen", "--note", "two boards").strip()
    (row,) = told(state, "tokens")
    assert (row["uses_left"], row["group"], row["note"]) == (2, "kitchen", "two boards")
    assert secret not in json.dumps(row)
    assert {row["name"], "kitchen", "two"} <= set(said(state, "tokens").split())
    said(state, "token", "--revoke", row["name"])
    assert told(state, "tokens") == []


def test_a_device_is_moved_into_a_group(state: Path) -> None:
    said(state, "group", "pi-2", "garden")
    assert {device["id"]: device["group"] for device in told(state, "devices")} == {"pi-1": "", "pi-2": "garden"}
    assert "garden" in said(state, "devices")


def test_steering_changes_what_is_shown(state: Path, fleet: Fleet) -> None:
    said(state, "budget", "pi-1", "12.5")
    assert told(state, "explain", "pi-1")["budget_j_per_day"] == 12.5
    said(state, "budget", "pi-1")
    assert told(state, "explain", "pi-1")["budget_j_per_day"] is None
    said(state, "pause")
    assert told(state, "status")["paused"] is True
    assert "paused" in said(state, "status")
    said(state, "resume")
    assert told(state, "status")["paused"] is False
    said(state, "quarantine", "pi-1", "--reason", "lens is broken")
    assert "quarantined" in said(state, "devices")
    assert "in quarantine: lens is broken" in said(state, "explain", "pi-1")
    said(state, "release", "pi-1")
    assert told(state, "explain", "pi-1")["quarantine"]["reason"] == ""
    said(state, "revoke", "pi-2")
    assert "revoked" in said(state, "devices")


def test_a_refusal_is_one_line(state: Path) -> None:
    assert failed("abort", "--state", str(state)).startswith("error: no round is running")
    assert failed("release", "pi-1", "--state", str(state)) == "error: device 'pi-1' is not in quarantine"
    assert failed("explain", "nobody", "--state", str(state)) == "error: device 'nobody' is not known"
    assert failed("explain", "../x", "--state", str(state)).startswith("error: ")
    assert "admin-token" in failed("devices", BITFLEET_STATE=str(state), BITFLEET_TOKEN="wrong")


def test_an_absent_aggregator_is_named_with_the_way_to_start_one(tmp_path: Path) -> None:
    line = failed("devices", "--url", "http://127.0.0.1:9", "--state", str(tmp_path))
    assert line == (
        "error: no aggregator answers at http://127.0.0.1:9: start one with 'bitfleet-aggregator serve', or give --url"
    )


def test_wrong_settings_and_a_port_in_use_are_one_line(tmp_path: Path) -> None:
    base = ("serve", "--state", str(tmp_path / "s"))
    network = ("--architecture", "resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10")
    assert "job.architecture is missing" in failed(*base)
    assert "http_port = 70000" in failed(*base, *network, "--port", "70000")
    assert "No such file" in failed(*base, "--config", str(tmp_path / "none.toml"))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        assert f"port {port} " in failed(*base, *network, "--port", port)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert command in result.output


def test_without_arguments_it_says_where_to_begin() -> None:
    result = CliRunner().invoke(app, [])
    assert all(command in result.output for command in COMMANDS)


def test_where_the_aggregator_is_comes_from_the_option_then_the_environment_then_the_folder(tmp_path: Path) -> None:
    assert find(None, tmp_path, {}).url == DEFAULT_URL
    write_endpoint(tmp_path, Endpoint("http://folder", "", ""))
    assert find(None, tmp_path, {}).url == "http://folder"
    assert find(None, tmp_path, {"BITFLEET_URL": "http://environment/"}).url == "http://environment"
    assert find("http://option", tmp_path, {"BITFLEET_URL": "http://environment"}).url == "http://option"


def test_what_is_no_aggregator_is_said_to_be_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            stream, _ = server.accept()
            with stream:
                stream.recv(4096)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n<ht>")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ClientError, match="is this an aggregator"):
            Client(f"http://127.0.0.1:{server.getsockname()[1]}").get("/status")
        thread.join()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (44_800_000, "44.8 MB"), (5_000_000_000_000, "5e+03 GB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text


def test_open_says_where_the_page_is(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    result = CliRunner().invoke(app, ["open", "--state", str(state)])
    assert shown == [result.stdout.strip()]
    assert shown[0].startswith("http://127.0.0.1:")
