"""`bitfleet-edge measure`: what models and training steps take here, and whether two runs differ."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.assembly import JOURNAL_FILE, MODELS_FOLDER
from edge.config import read_config
from edge.files import write_atomic
from edge.measure.compare import between, caveats, within
from edge.measure.document import Document, Plan, read_document, write_document
from edge.measure.history import Entry, entries_of, remember
from edge.measure.model_file import ModelFile, read_model
from edge.measure.plot import check_plot, write_plot
from edge.measure.report import comparison_table, notes_on, summary, table
from edge.measure.run import measure as measure_all
from edge.measure.run import steps_of
from edge.measure.subject import MeasureError, Subject
from edge.measure.training_step import TrainingStep
from edge.meter_commands import Meter as MeterOption
from edge.meters.base import Meter
from edge.meters.choose import open_meter
from edge.options import ConfigFile, StateDir, Threads
from edge.runtime import NoModel, Runtime
from protocol.precision import Precision

QUICK: Final = Plan(windows=5, window_s=0.5, warm_up_s=3.0, baseline_s=10.0)
MAX_BATCH: Final = 4096
"""As in training; more pictures at once than any board has memory for."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line names."""

    models: Sequence[Path]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    train: str | None
    train_batches: tuple[int, ...]
    threads: int


def measure(
    models: Annotated[
        list[Path] | None, typer.Argument(help="ONNX files that bitfleet-export wrote; default: those installed here.")
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="Pictures in one inference; several joined by commas.")] = "1",
    precision: Annotated[
        str | None, typer.Option("--precision", help="Only models of these, and what --train trains at.")
    ] = None,
    train: Annotated[
        str | None, typer.Option("--train", help="Spec of a network whose training step to measure; needs torch.")
    ] = None,
    train_batch: Annotated[str, typer.Option("--train-batch", help="Pictures in one training step.")] = "32",
    seconds: Annotated[float | None, typer.Option("--seconds", help="Length of a window; default 3.")] = None,
    windows: Annotated[int | None, typer.Option("--windows", help="Windows of each; default 10.")] = None,
    threads: Threads = None,
    quick: Annotated[bool, typer.Option("--quick", help="5 windows of half a second: a look, not a result.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the document here.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw here: .svg, .png or .pdf; needs matplotlib.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", help="Measure nothing: compare two documents.")
    ] = None,
    believe: Annotated[
        bool, typer.Option("--believe", help="Trust figures although they contradict this device's history.")
    ] = False,
    meter: MeterOption = None,
    config: ConfigFile = None,
    state: StateDir = None,
) -> None:
    """Measure latency and energy per inference and per training step, or compare two measurements.

    All that is named is measured against one another: after warm-up, window by window, in random order. Ratios carry a
    95 % interval, and noise is not called a difference. Ctrl-C keeps what is finished. What one picture takes with a
    model file goes into the device's next birth, for the aggregator to plan with.

    Examples:
        bitfleet-edge measure

        bitfleet-edge measure fp32.onnx w8.onnx --batch 1,8 --json today.json --plot today.svg

        bitfleet-edge measure --train resnet18:width=0.25,stem=3x3,input=3x32x32,classes=10 --precision fp32,W8A8

        bitfleet-edge measure --compare before.json after.json
    """
    console = Console()
    if compare is not None:
        _compare(console, *compare, json_file)
        return
    _check_targets(json_file, plot)
    settings = read_config(config, {"state_dir": state, "meter": meter})
    plan = _plan(seconds, windows, settings.threads if threads is None else threads, quick=quick)
    state_dir = settings.state_dir
    sizes = _batches("batch", batch), _batches("train-batch", train_batch)
    asked = _Asked(models or (), sizes[0], _precisions(precision), train, sizes[1], plan.threads)
    subjects = _subjects(asked, state_dir)
    with open_meter(settings.meter) as opened:
        for note in opened.notes:
            console.print(f"[yellow]{escape(note)}; energy is {opened.meter.description.source}[/]")
        document = _measured(subjects, opened.meter, plan)
    _show(console, document)  # before anything that may fail: minutes went into it
    if json_file is not None:
        write_document(json_file, document)
    if plot is not None:
        write_plot(plot, document)
    if document.complete and (state_dir / JOURNAL_FILE).exists():
        _told(console, remember(state_dir, entries_of(document, settings.threads), believe=believe))
    if not document.complete:
        raise typer.Exit(130)


def _check_targets(json_file: Path | None, plot: Path | None) -> None:
    """Say before the first second is spent where the results cannot go."""
    for name, path in (("json", json_file), ("plot", plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise MeasureError(f"--{name} {path}: there is no folder {path.absolute().parent}")
    if plot is not None:
        check_plot(plot)


def _plan(seconds: float | None, windows: int | None, threads: int, *, quick: bool) -> Plan:
    usual = QUICK if quick else Plan()
    return Plan(
        windows=usual.windows if windows is None else windows,
        window_s=usual.window_s if seconds is None else seconds,
        warm_up_s=usual.warm_up_s,
        baseline_s=usual.baseline_s,
        threads=threads,
    )


def _subjects(asked: _Asked, state_dir: Path) -> list[Subject]:
    """What to measure, checked before the first second is spent.

    Raises:
        MeasureError: nothing is left to measure, or something cannot be.
        NoModel: none was named, and none is installed.
    """
    files = [(path.name, read_model(path)) for path in asked.models]
    if not files and asked.train is None:
        files = list(_installed(state_dir))
    found = [ModelFile(data, name, size, asked.threads) for name, data in files for size in asked.batches]
    chosen: list[Subject] = [one for one in found if not asked.precisions or one.facts.precision in asked.precisions]
    if asked.train is not None:
        for name in asked.precisions or ("fp32",):
            chosen += [TrainingStep(asked.train, name, size, asked.threads) for size in asked.train_batches]
    if not chosen:
        have = ", ".join(dict.fromkeys(one.facts.precision for one in found))
        raise MeasureError(f"--precision {','.join(asked.precisions)}: the models are {have}")
    return chosen


def _installed(state_dir: Path) -> Iterator[tuple[str, bytes]]:
    folder = state_dir / MODELS_FOLDER
    runtime, _ = Runtime.restore(folder) if folder.exists() else (None, [])
    slots = [] if runtime is None else [slot for slot in (runtime.current, runtime.previous) if slot is not None]
    if not slots:
        raise NoModel(f"no model in {folder}: name ONNX files to measure, or --train SPEC")
    for slot in slots:
        yield f"version {slot.version}", read_model(folder / f"{slot.digest}.onnx")


def _measured(subjects: list[Subject], meter: Meter, plan: Plan) -> Document:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn between windows and never beside one: a thread that draws would be in what is measured.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=steps_of(plan, len(subjects), meter))
        begun = False

        def tell(what: str) -> None:
            nonlocal begun
            progress.update(task, description=escape(what), advance=int(begun), refresh=True)
            begun = True

        return measure_all(subjects, meter, plan, tell)


def _show(console: Console, document: Document) -> None:
    console.print(table(document))
    if comparisons := within(document):
        console.print(comparison_table(comparisons))
    for note in notes_on(document):
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    console.print("\nTo paste into a report:\n")
    print(summary(document))


def _told(console: Console, entries: list[Entry]) -> None:
    """What becomes of the figures."""
    console.print()
    for entry in entries:
        if entry.flag:
            console.print(
                f"[red]not believed:[/] {entry.precision}: {escape(entry.flag)}. Measure again: if it comes out the"
                " same it is believed; or say --believe",
                soft_wrap=True,
            )
        else:
            cost = f"{entry.latency_ms:.3g} ms, {entry.energy_mj:.3g} mJ ({entry.source})"
            console.print(f"next birth: {entry.precision} {cost}", soft_wrap=True)


def _compare(console: Console, first: Path, second: Path, json_file: Path | None) -> None:
    documents = read_document(first), read_document(second)
    comparisons = between(*documents)
    differences = list(caveats(*documents))
    if json_file is not None:
        plain = {"comparisons": [asdict(one) for one in comparisons], "caveats": differences}
        write_atomic(json_file, json.dumps(plain, indent=1, ensure_ascii=False).encode() + b"\n", mode=0o644)
    console.print(comparison_table(comparisons))
    for difference in differences:
        console.print(f"[yellow]note:[/] {escape(difference)}", soft_wrap=True)


def _batches(option: str, text: str) -> tuple[int, ...]:
    sizes = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= MAX_BATCH:
            raise MeasureError(f"--{option} {text}: expected whole numbers of 1 to {MAX_BATCH}, for example 1,8")
        sizes.append(int(part))
    return tuple(dict.fromkeys(sizes))


def _precisions(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(dict.fromkeys(str(Precision.parse(part.strip())) for part in text.split(",")))
