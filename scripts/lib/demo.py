"""A whole federation on one machine: one aggregator, a broker and several agents, each a process of its own.

The story in order: pictures are dealt out unevenly, everything starts, rounds run, one agent is killed in the middle
of its training, and at the end every device holds an ONNX model at the precision its energy budget allows.
"""

import json
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
import urllib3
from door import DoorError
from launch import Cast, Plot, launch, name_of
from outcome import evaluate, facts_of
from pictures import SHAPE, gather
from processes import Children
from report import render
from rich import box
from rich.table import Table
from telling import DemoError, console, say
from watch import watch

from protocol.architecture import Architecture
from protocol.errors import ProtocolError
from protocol.networks import resnet18
from protocol.precision import Precision


def demo(
    *,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Agent processes.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of training.")] = 8,
    width: Annotated[float, typer.Option(help="Width multiplier of the ResNet18, 1 is the published one.")] = 0.125,
    data: Annotated[
        str, typer.Option(help="auto, digits, fashion-mnist, or a folder of class folders, IDX files or an .npz file.")
    ] = "auto",
    broker: Annotated[
        str, typer.Option(help="auto, mosquitto, embedded, or the URL of a broker, like mqtt://host:1883.")
    ] = "auto",
    keep: Annotated[
        Path | None, typer.Option(help="Keep everything (logs, state, models, report) in this folder.")
    ] = None,
    precisions: Annotated[
        str, typer.Option(help="What devices may run, best first; they get energy budgets for these in turn.")
    ] = "W8A8,W4A8,W1A8",
    alpha: Annotated[
        float, typer.Option(min=0.01, help="Unevenness of the deal: Dirichlet alpha, small is uneven.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the deal and of all training.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the result as JSON to this file.")
    ] = None,
) -> None:
    """Watch a fleet learn one model and run it at the precision each device can afford.

    Starts an aggregator with a broker of its own and several agents, trains a quantized ResNet18 on real pictures,
    kills one agent on the way, and ends with a table, ONNX files and an HTML report. Everything stays on this machine.
    """
    began_s = time.monotonic()
    with ExitStack() as stack:
        folder = _workplace(keep, stack)
        try:
            fleet = gather(data, devices, alpha=alpha, seed=seed)
        except Exception as error:
            raise DemoError(f"--data {data}: {error}") from error
        plot = Plot(
            fleet=fleet,
            network=_network(width, len(fleet.class_names)),
            precisions=_precisions(precisions),
            rounds=rounds,
            broker=broker,
            seed=seed,
            folder=folder,
        )
        say(f"{devices} devices share {len(fleet.train_N)} pictures of {fleet.name}; {len(fleet.held_out_N)} held out")
        cast = launch(plot, stack.enter_context(Children(folder / "logs")))
        watch(cast)
        result = _conclude(cast, began_s)
    _show(result)
    report = (keep or Path.cwd()) / "demo-report.html"
    report.write_text(render(result))
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    say(f"report: {report}" + (f"; models, logs and state: {keep}" if keep else ""))
    if result["failures"]:
        raise DemoError("; ".join(result["failures"]))


def _network(width: float, classes: int) -> Architecture:
    try:
        return resnet18(width=width, input_shape=SHAPE, classes=classes)
    except ProtocolError as error:
        raise DemoError(f"--width {width}: {error}") from error


def _precisions(text: str) -> tuple[Precision, ...]:
    try:
        return tuple(Precision.parse(name.strip()) for name in text.split(","))
    except ProtocolError as error:
        raise DemoError(f"--precisions {text}: {error}") from error


def _workplace(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="bitfleet-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    else:
        folder = keep.absolute()
        if folder.exists() and any(folder.iterdir()):
            raise DemoError(f"--keep {keep}: expected a new or empty folder")
    (folder / "logs").mkdir(parents=True)
    return folder


def _conclude(cast: Cast, began_s: float) -> dict[str, Any]:
    """Everything worth showing, gathered over HTTP while the aggregator still runs, and evaluated here."""
    plot = cast.plot
    devices = [cast.door.get(f"/api/v1/devices/{name_of(index)}") for index in range(len(cast.agents))]
    updates = cast.door.every("/api/v1/updates")
    models = sorted(cast.door.every("/api/v1/models"), key=lambda model: model["version"])
    result = evaluate(
        network=plot.network,
        fleet=plot.fleet,
        devices=devices,
        budgets=plot.budgets_j_per_day,
        updates=updates,
        rounds=cast.door.every("/api/v1/rounds"),
        models=models,
        blob=cast.door.blob,
        killed=cast.killed,
    )
    version = models[-1]["version"]
    for export in result["exports"]:
        (plot.folder / f"model-{version}-{export['precision']}.onnx").write_bytes(cast.door.blob(export["digest"]))
    result["broker"] = "Mosquitto" if (plot.folder / "aggregator" / "broker" / "mosquitto.conf").exists() else "MQTT"
    result["wall_s"] = time.monotonic() - began_s
    result["facts"] = facts_of(plot.network, plot.fleet, result["wall_s"])
    return result


def _show(result: dict[str, Any]) -> None:
    table = Table(title="What every device ended with", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("device")
    table.add_column("budget\nJ/day", justify="right")
    table.add_column("\nruns")
    headers = ("accu-\nracy", "model\nkB", "p50\nms", "sent\nkB", "of\nfp32", "recvd\nkB", "of\nfp32")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for device in result["devices"]:
        table.add_row(
            device["name"],
            f"{device['budget_j_per_day']:.2f}" if device["budget_j_per_day"] else "mains",
            device["precision"],
            f"{100 * device['accuracy']:.1f} %",
            f"{device['model_bytes'] / 1000:.0f}",
            f"{device['p50_ms']:.2f}",
            f"{device['update_bytes'] / 1000:.0f}",
            f"1/{device['up_ratio']:.1f}",
            f"{device['received_bytes'] / 1000:.0f}",
            f"1/{device['down_ratio']:.1f}",
        )
    console.print(table)
    for reason in dict.fromkeys(device["reason"] for device in result["devices"]):
        say(reason)
    for export in result["exports"]:
        say(f"{export['precision']}: {export['agree']} of {export['pictures']} pictures agree with the reference")
    if killed := result["killed"]:
        say(
            f"{killed['device']} was killed in round {killed['round']}: its update was counted {killed['counted']} time"
        )


def main() -> None:
    """Entry point: a failure is one message and exit code 1, Ctrl-C is exit code 130."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through the context managers, as Ctrl-C does
    try:
        typer.run(demo)
    except (DemoError, DoorError) as error:
        sys.exit(f"demo: {error}")
    except urllib3.exceptions.HTTPError as error:
        sys.exit(f"demo: the aggregator does not answer: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
