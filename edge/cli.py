"""`bitfleet-edge`: the agent on a device. The outermost layer: it prints, logs and turns errors into exit codes."""

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer
import urllib3
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from edge.agent import Agent
from edge.assembly import MODELS_FOLDER, WORK_FOLDER, assembled, open_journal
from edge.codecs import SHOWN, last_update
from edge.codecs import measure as measure_codec
from edge.config import Config, ConfigError, read_config
from edge.courier import Revoked
from edge.data import DataError
from edge.doctor import examine
from edge.files import AlreadyRunning, only_one, write_atomic
from edge.finding import Finding, Verdict
from edge.infer_commands import infer
from edge.join import JoinError
from edge.lifecycle import Lifecycle
from edge.measure.document import DocumentError
from edge.measure.subject import MeasureError
from edge.measure_commands import measure
from edge.membership import Membership, MembershipError, device_key, forget_membership
from edge.meter_commands import Meter, meters
from edge.options import AsJson, ConfigFile, StateDir
from edge.provision import Provisioner
from edge.runtime import NoModel, Runtime
from edge.session import InferenceFailed, ModelRefused
from edge.state import Journal
from edge.training.task import TrainerError
from edge.trust import TrustError
from protocol.errors import ProtocolError

EXPECTED: Final = (
    AlreadyRunning,
    ConfigError,
    DataError,
    DocumentError,
    InferenceFailed,
    JoinError,
    MeasureError,
    MembershipError,
    ModelRefused,
    NoModel,
    OSError,
    ProtocolError,
    Revoked,
    TrainerError,
    TrustError,
)
"""Errors whose message says all there is to say; anything else is a bug and keeps its traceback."""

COLOURS: Final = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}

app = typer.Typer(
    help="""The bitfleet agent: joins a fleet, trains on this device's pictures, runs the model that fits it.

    A first day, on a Raspberry Pi with pictures in class folders below ~/pictures:

        bitfleet-edge join --aggregator http://10.0.0.2:8700 --token TOKEN

        bitfleet-edge doctor --aggregator http://10.0.0.2:8700 --data ~/pictures

        bitfleet-edge run --aggregator http://10.0.0.2:8700 --data ~/pictures

        bitfleet-edge infer ~/pictures

        bitfleet-edge measure

        bitfleet-edge codecs

    Settings that stay belong into a TOML file, named by --config or BITFLEET_EDGE_CONFIG.
    """,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(meters)

DeviceName = Annotated[str | None, typer.Option("--device", help="Name in the fleet; default: the host's name.")]
Aggregator = Annotated[
    str | None, typer.Option("--aggregator", envvar="BITFLEET_AGGREGATOR", help="URL, like http://10.0.0.2:8700.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Class folders of pictures, IDX files, or an .npz.")]
Token = Annotated[str | None, typer.Option("--token", envvar="BITFLEET_TOKEN", help="Join token; erased after use.")]


def main() -> None:
    """The command's entry point."""
    try:
        app()
    except EXPECTED as error:
        _fail(str(error))


@app.command()
def run(
    config: ConfigFile = None,
    state: StateDir = None,
    device: DeviceName = None,
    aggregator: Aggregator = None,
    data: Data = None,
    token: Token = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Joules a day for inference; 0 is mains.")] = None,
    inferences: Annotated[int | None, typer.Option("--inferences", help="How many a day the budget is for.")] = None,
    meter: Meter = None,
) -> None:
    """Join if need be, then work for the fleet until stopped.

    Examples:
        bitfleet-edge run --aggregator http://10.0.0.2:8700 --token TOKEN --data ~/pictures

        bitfleet-edge run --config /etc/bitfleet/edge.toml

        bitfleet-edge run --config edge.toml --budget 40 --inferences 75000
    """
    _log_to_stderr()
    limits = {"budget_j_per_day": budget, "inferences_per_day": inferences}
    settings = _settings(config, state, device, aggregator, data=data, meter=meter, **limits)
    with _signals() as stopping, _member(settings, token, stopping) as (journal, membership, http):
        if membership is not None:
            with assembled(settings, membership, journal, http) as parts:
                agent = Agent(parts)
                stopping.call(agent.stop)
                agent.run()


@app.command()
def join(
    config: ConfigFile = None,
    state: StateDir = None,
    device: DeviceName = None,
    aggregator: Aggregator = None,
    token: Token = None,
) -> None:
    """Join a fleet, once.

    The key is made here and stays here; the token is erased once it was used. A revoked device joins again with a
    new token.

    Example:
        bitfleet-edge join --aggregator http://10.0.0.2:8700 --token TOKEN --device pi-kitchen
    """
    _log_to_stderr()
    settings = _settings(config, state, device, aggregator)
    with _signals() as stopping, _member(settings, token, stopping) as (_, membership, _http):
        if membership is not None:
            Console().print(f"device {membership.device} is a member of fleet {membership.fleet}")


app.command()(infer)


@app.command()
def rollback(config: ConfigFile = None, state: StateDir = None) -> None:
    """Go back to the model before. The one left behind is refused here until the fleet makes another.

    The agent must not be running: stop it first, and start it again afterwards.

    Example:
        bitfleet-edge rollback --config /etc/bitfleet/edge.toml
    """
    settings = _settings(config, state)
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(settings.state_dir / "lock"):
        runtime, _ = Runtime.restore(settings.state_dir / MODELS_FOLDER)
        slot = runtime.rollback()
    Console().print(f"runs model version {slot.version} at {slot.precision} again")


@app.command()
def codecs(
    recipes: Annotated[
        list[str] | None, typer.Argument(help="Recipes to measure; default: one or two of each kind.")
    ] = None,
    config: ConfigFile = None,
    state: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what each recipe makes of the update that this device trained last: bits, error and time.

    A recipe is how updates are coded; the aggregator chooses one for the fleet. bpp counts every byte of the payload,
    header and side tensors too. The error is ‖decoded − update‖²/‖update‖² of the weights; with ef+ before a recipe,
    what it drops is added to the next update.

    Examples:
        bitfleet-edge codecs

        bitfleet-edge codecs sign eden:1 ef+stc:0.01 uniform:4+rc --json
    """
    settings = _settings(config, state)
    update = last_update(settings.state_dir / WORK_FOLDER)
    chosen = track(recipes or SHOWN, "measuring", console=Console(stderr=True), transient=True)
    rows = [measure_codec(update, recipe) for recipe in chosen]
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("recipe", "bytes", "bpp", "error", "encode", "decode", title=f"{update.report.architecture}")
    for row in rows:
        times = f"{row.encode_ms:.1f} ms", f"{row.decode_ms:.1f} ms"
        table.add_row(row.recipe, f"{row.payload_bytes:,}", f"{row.bpp:.4g}", f"{row.error:.4g}", *times)
    Console().print(table)


@app.command()
def doctor(
    config: ConfigFile = None,
    state: StateDir = None,
    device: DeviceName = None,
    aggregator: Aggregator = None,
    data: Data = None,
    meter: Meter = None,
    as_json: AsJson = False,
) -> None:
    """Check everything the device needs, and say what to do about each failure. Exit code 1 if one failed.

    Examples:
        bitfleet-edge doctor --config /etc/bitfleet/edge.toml

        bitfleet-edge doctor --aggregator http://10.0.0.2:8700 --json
    """
    findings = examine(_settings(config, state, device, aggregator, data=data, meter=meter))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        Console().print(_report(findings))
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(1)


app.command()(measure)


def _settings(
    config: Path | None,
    state: Path | None,
    device: str | None = None,
    aggregator: str | None = None,
    **others: float | str | Path | None,
) -> Config:
    return read_config(config, {"state_dir": state, "device": device, "aggregator": aggregator, **others})


@contextmanager
def _member(
    settings: Config, token: str | None, stopping: "_Stopping"
) -> Iterator[tuple[Journal, Membership | None, urllib3.PoolManager]]:
    """The journal of this start and the device's membership, which is None when the program was ended first."""
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(settings.state_dir / "lock"), urllib3.PoolManager() as http:
        journal = open_journal(settings)
        if token is not None:
            write_atomic(settings.token_path, token.encode())
            if journal.record.lifecycle is Lifecycle.REVOKED:
                forget_membership(settings.state_dir)
                journal.move(Lifecycle.JOINING)
        provisioner = Provisioner(settings, journal, device_key(settings.state_dir), http, stopping.event.wait)
        yield journal, provisioner.membership(), http


class _Stopping:
    """SIGTERM and SIGINT as an event, and as a call once there is something to stop."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._stop: Callable[[], None] = lambda: None

    def call(self, stop: Callable[[], None]) -> None:
        """Have `stop` called too; at once if the signal was faster."""
        self._stop = stop
        if self.event.is_set():
            stop()

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.event.set()
        self._stop()


@contextmanager
def _signals() -> Iterator[_Stopping]:
    stopping = _Stopping()
    before = {number: signal.signal(number, stopping.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(findings: list[Finding]) -> Table:
    table = Table("check", "", "found", "what to do")
    for finding in findings:
        verdict = f"[{COLOURS[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(finding.check, verdict, escape(finding.detail), escape(finding.advice))
    return table


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
