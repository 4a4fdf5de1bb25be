"""`bitfleet-aggregator`: run the service, or ask and steer one that runs."""

import logging
import os
import signal
import sys
import webbrowser
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.markup import escape

from aggregator import logs, tables
from aggregator.allocate.choices import Infeasible
from aggregator.allocate.mixed import SensitivityError, plan, read
from aggregator.backup import BackupError
from aggregator.backup_command import backup, restore_backup
from aggregator.blobs import BlobError
from aggregator.broker import BrokerError
from aggregator.broker_command import broker_config
from aggregator.child import ChildError
from aggregator.client import Client, ClientError
from aggregator.config import Config, ConfigError, load
from aggregator.console import client as _client
from aggregator.console import show as _show
from aggregator.devices import MAINS_J_PER_DAY
from aggregator.handout import HandoutError
from aggregator.handout_command import export_for_devices
from aggregator.identity_commands import applicants, approve, audit, reject, user
from aggregator.joining_commands import group, token, tokens
from aggregator.model import GlobalModel, ModelError, base_payload
from aggregator.options import DeviceArgument, JsonOption, StateOption, UrlOption
from aggregator.ports import PortError
from aggregator.presets import PRESETS
from aggregator.secret_files import SecretError
from aggregator.service import open_service
from aggregator.start import StartError
from aggregator.state_dir import StateDirError
from aggregator.store import StoreError
from aggregator.versions import JobMismatch
from export.errors import ExportError
from protocol.errors import ProtocolError
from protocol.precision import Precision

EXPECTED_ERRORS: Final = (
    BackupError,
    BlobError,
    BrokerError,
    ChildError,
    ClientError,
    ConfigError,
    ExportError,
    HandoutError,
    Infeasible,
    JobMismatch,
    ModelError,
    OSError,
    PortError,
    ProtocolError,
    SecretError,
    SensitivityError,
    StartError,
    StateDirError,
    StoreError,
)
"""Told in one line; anything else is a bug and keeps its traceback."""
MAINS: Final = "mains"

app = typer.Typer(
    name="bitfleet-aggregator",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Runs a fleet: rounds of training, the model, and who runs it at which precision.\n\n"
    "Begin with [bold]serve[/bold], make a join token with [bold]token[/bold], give it to a device,"
    " then look at [bold]devices[/bold] and [bold]rounds[/bold].",
)


@app.command()
def serve(
    *,
    config: Annotated[Path | None, typer.Option(help="TOML file; see the README for its keys.")] = None,
    state: Annotated[Path | None, typer.Option(help="State directory: everything the fleet must remember.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Name of the fleet.")] = None,
    host: Annotated[str | None, typer.Option(help="Address for HTTP; 0.0.0.0 lets other machines in.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 for any free one.")] = None,
    broker: Annotated[
        str | None, typer.Option(help="auto, mosquitto, embedded, or a URL mqtt://host:port.", show_default="auto")
    ] = None,
    broker_host: Annotated[str | None, typer.Option(help="Address for a broker of its own.")] = None,
    broker_port: Annotated[int | None, typer.Option(help="Port for a broker of its own; 0 for any free one.")] = None,
    tls: Annotated[
        str | None,
        typer.Option(help="on, off, or auto: as soon as other machines can reach this one.", show_default="auto"),
    ] = None,
    holdout: Annotated[Path | None, typer.Option(help="Held-out pictures (.npz) that models are rated on.")] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Weights to start from, as 'bitfleet-export adopt' writes them; only a new fleet looks."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="The network to train; that of the weights to start from if not given.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Settings of a published system, or ours that beats it: {', '.join(PRESETS)}.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="How devices train: oqfl (learned steps, one precision each), best (every precision), …"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="How devices code updates: ef+sign (one bit a weight), eden:1, uniform:4+rc, ef+stc:0.0025, fp32, …",
            show_default="ef+sign",
        ),
    ] = None,
    downlink: Annotated[
        str | None,
        typer.Option(
            help="How models come down: fp32, half, uniform:8, or what changed alone: delta:eden:2, delta:stc:0.01, …",
            show_default="fp32",
        ),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Who decides on recipe and downlink, round by round: fedaq:JOULES or best:JOULES+rc a round, …",
            show_default="fixed",
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training; 0 for ever.")] = None,
    log_format: Annotated[
        str | None, typer.Option(help="How the log is written: text, or json, a line an object.", show_default="text")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            help="How updates are merged: mean, or so that devices which lie do little: clip:median, median,"
            " trimmed:0.3, krum:0.3, multi-krum:0.3, clip:median+trimmed:0.3, …",
            show_default="mean",
        ),
    ] = None,
    quarantine: Annotated[
        str | None,
        typer.Option(
            help="off, or k/m such as 3/5: who gave cause for doubt in k of its last m rounds is asked no more.",
            show_default="off",
        ),
    ] = None,
) -> None:
    """Run the aggregator until it is stopped.

    What is not given here is taken from the environment (BITFLEET_…), then from the file, then from the defaults.

    [bold]bitfleet-aggregator serve --architecture resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10[/bold]

    [bold]bitfleet-aggregator serve --start weights.bf[/bold]

    [bold]bitfleet-aggregator serve --config fleet.toml --host 0.0.0.0 --broker-host 0.0.0.0[/bold]
    """
    settings = load(
        config,
        environment=os.environ,
        overrides={
            "state_dir": state,
            "fleet": fleet,
            "http_host": host,
            "http_port": port,
            "broker": broker,
            "broker_host": broker_host,
            "broker_port": broker_port,
            "tls": tls,
            "holdout": holdout,
            "log_format": log_format,
            "start": start,
            "job": {
                "architecture": architecture,
                "preset": preset,
                "method": method,
                "recipe": recipe,
                "downlink": downlink,
                "rates": rates,
                "rounds": rounds,
                "merge": merge,
                "quarantine": quarantine,
            },
        },
    )
    logs.set_up(settings.log_format, settings.fleet)
    _run(settings)


def _run(settings: Config) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # until there is something to stop
    with open_service(settings) as service:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        log = logging.getLogger("bitfleet.aggregator")
        what = "page and API" if settings.page else "API"
        log.info(
            "fleet %s: %s at %s, broker at %s", settings.fleet, what, service.endpoint.http, service.endpoint.broker
        )
        service.run()
        log.info("fleet %s: stopping", settings.fleet)


for command in (token, tokens, group, applicants, approve, reject, audit):
    app.command()(command)
app.add_typer(user, name="user")
app.command("broker-config")(broker_config)


@app.command("open")
def open_page(state: StateOption, url: UrlOption = None) -> None:
    """Say where the web page is, and show it where there is a browser."""
    address = _client(url, state).url
    print(address)
    webbrowser.open(address)


@app.command()
def status(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show where the fleet stands and what every device is doing."""
    _show(_client(url, state).get("/status"), tables.status, as_json=as_json)


@app.command()
def devices(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List devices with precision, budget and bytes."""
    _show(_client(url, state).every("/devices"), tables.devices, as_json=as_json)


@app.command()
def rounds(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List rounds with their updates and bytes."""
    _show(_client(url, state).every("/rounds"), tables.rounds, as_json=as_json)


@app.command()
def energy(
    *,
    number: Annotated[int | None, typer.Option("--round", help="Of one round only.")] = None,
    device: Annotated[str | None, typer.Option(help="Of one device only.")] = None,
    state: StateOption,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the joules went: by round, device and purpose, measured or modelled.

    [bold]bitfleet-aggregator energy --device pi-kitchen[/bold]
    """
    asked = {name: value for name, value in (("round", number), ("device", device)) if value is not None}
    _show(_client(url, state).every(f"/energy?{urlencode(asked)}", "entries"), tables.energy, as_json=as_json)


@app.command()
def models(
    *,
    state: StateOption,
    download: Annotated[
        Path | None, typer.Option(help="Write the newest version's ONNX files, and their weights, to this folder.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions of the model and their ONNX files, and fetch the newest.

    [bold]bitfleet-aggregator models --download models/[/bold]
    """
    client = _client(url, state)
    found = client.every("/models")
    if download and found:
        _download(client, found[0], download)
    _show(found, tables.models, as_json=as_json)


def _download(client: Client, model: dict[str, Any], folder: Path) -> None:
    """ONNX files as they are, and for `bitfleet-export` the weights they were made from, with every profile."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"model-{model['version']}-{made['precision']}.onnx": made["digest"] for made in model["exports"]}
    for name, digest in files.items():
        _written(folder / name, client.blob(digest))
    weights = GlobalModel.from_bytes(client.blob(model["digest"]))
    trained = [Precision.parse(name) for name in sorted(weights.profiles)]
    if trained:
        _written(folder / f"weights-{model['version']}.bf", base_payload(weights, trained, "fp32", seed=0))


def _written(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    Console(stderr=True).print(f"wrote {path}", highlight=False)


app.command("export")(export_for_devices)
app.command("backup")(backup)
app.command("restore-backup")(restore_backup)


@app.command()
def explain(device: DeviceArgument, state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Say why a device runs the precision it runs.

    [bold]bitfleet-aggregator explain pi-kitchen[/bold]
    """
    _show(_client(url, state).get(f"/devices/{quote(device, '')}"), tables.explanation, as_json=as_json)


@app.command()
def mixed(
    sensitivities: Annotated[
        Path, typer.Argument(help='JSON: {"architecture": …, "loss": {layer: {bits: what the loss rises by}}}.')
    ],
    *,
    weight_bytes: Annotated[float, typer.Option("--bytes", help="Limit for the weights of the whole network.")] = inf,
    bops: Annotated[float, typer.Option(help="Limit for the bit operations of an inference.")] = inf,
    as_json: JsonOption = False,
) -> None:
    """Plan bits layer by layer: the least loss within limits. Exports have one width; this tells what more would bring.

    [bold]bitfleet-aggregator mixed sensitivities.json --bytes 400000[/bold]
    """
    network, losses, activation_bits = read(sensitivities.read_text())
    found = plan(network, losses, activation_bits=activation_bits, weight_bytes=weight_bytes, bops=bops)
    _show(asdict(found), tables.plan, as_json=as_json)


@app.command()
def budget(
    device: DeviceArgument,
    joules: Annotated[
        str | None, typer.Argument(help="Joules per day, or mains for no limit; leave out to give back its own.")
    ] = None,
    *,
    state: StateOption,
    url: UrlOption = None,
) -> None:
    """Set a device's energy budget; 0 is a budget of nothing, and is reported as what nothing fits.

    [bold]bitfleet-aggregator budget pi-kitchen 40[/bold]

    [bold]bitfleet-aggregator budget pi-kitchen mains[/bold]
    """
    _client(url, state).put(f"/devices/{quote(device, '')}/budget", {"joules_per_day": _joules(joules)})


def _joules(text: str | None) -> float | None:
    if text is None or text == MAINS:
        return None if text is None else MAINS_J_PER_DAY
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"budget = {text!r}: expected joules per day, or {MAINS}") from error


@app.command()
def revoke(device: DeviceArgument, state: StateOption, url: UrlOption = None) -> None:
    """Shut a device out for good."""
    _client(url, state).post(f"/devices/{quote(device, '')}/revoke")


@app.command()
def quarantine(
    device: DeviceArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later.")],
    state: StateOption,
    url: UrlOption = None,
) -> None:
    """Ask a device no more until it is released; it keeps its model. What spoke against one is told by explain.

    [bold]bitfleet-aggregator quarantine pi-kitchen --reason 'lens is broken'[/bold]
    """
    _client(url, state).post(f"/devices/{quote(device, '')}/quarantine", {"reason": reason})


@app.command()
def release(device: DeviceArgument, state: StateOption, url: UrlOption = None) -> None:
    """Ask a device in quarantine again; what it did before counts no more."""
    _client(url, state).post(f"/devices/{quote(device, '')}/release")


@app.command()
def restore(
    version: Annotated[int, typer.Argument(help="The version to go back to.")],
    state: StateOption,
    url: UrlOption = None,
) -> None:
    """Make an older version of the model the current one; what came between stays on record.

    [bold]bitfleet-aggregator restore 7[/bold]
    """
    answer = _client(url, state).post(f"/models/{version}/restore")
    print(f"version {version} is the current one again, as version {answer['round']}")


@app.command()
def pause(state: StateOption, url: UrlOption = None) -> None:
    """Open no further round; the current one goes on."""
    _client(url, state).post("/rounds/pause")


@app.command()
def resume(state: StateOption, url: UrlOption = None) -> None:
    """Open rounds again."""
    _client(url, state).post("/rounds/resume")


@app.command()
def abort(state: StateOption, url: UrlOption = None) -> None:
    """Give up the current round; the model stays as it is."""
    answer = _client(url, state).post("/rounds/abort")
    print(f"round {answer['round']} is given up")


def main() -> None:
    """The command `bitfleet-aggregator`."""
    try:
        app()
    except EXPECTED_ERRORS as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
