"""`bitfleet-edge infer`: what is on pictures and on a camera's frames, with the model installed here or a file's."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from edge.assembly import MODELS_FOLDER
from edge.config import Config, read_config
from edge.data import DataError
from edge.data.folder import class_names
from edge.inference.answers import Answer, Classifier, NamesOf, Skipped
from edge.inference.frames import FrameFormat
from edge.inference.models import Following, Models, from_file
from edge.inference.sources import STANDARD_INPUT, Source, stored, streamed
from edge.inference.tally import Summary, Tally
from edge.options import ConfigFile, StateDir, Threads
from edge.runtime import Runtime

INTERRUPTED: Final = 128 + signal.SIGINT


def infer(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures that Pillow reads, folders of them, .npz files; with --frames a pipe or -."),
    ] = None,
    frames: Annotated[
        str | None, typer.Option("--frames", help="Raw frames: WIDTHxHEIGHT and rgb24, gray or yuv420p.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="An exported .onnx file instead of the model installed here.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=4096, help="Pictures in one inference.")] = 1,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to name of each picture.")] = 1,
    threads: Threads = None,
    watch: Annotated[bool, typer.Option("--watch", help="Take over each new model that the agent installs.")] = False,
    config: ConfigFile = None,
    state: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, the last one the summary.")] = False,
) -> None:
    """Say what is on pictures, one line each: name, class and confidence, time of the inference it was part of.

    Works beside a running agent and without one. Ctrl-C ends it with the summary. Exit code 1 if a picture could not
    be read.

    Examples:
        bitfleet-edge infer cat.jpg ~/pictures --top 3

        bitfleet-edge infer test.npz --model w4.onnx --batch 32 --json

        rpicam-vid -t 0 --width 640 --height 480 --codec yuv420 -o - | bitfleet-edge infer --frames 640x480:yuv420p -

        ffmpeg -i door.mp4 -f rawvideo -pix_fmt rgb24 - | bitfleet-edge infer --frames 1280x720:rgb24 -
    """
    settings = read_config(config, {"state_dir": state, "threads": threads})
    source = _source(pictures or [], frames)
    console = Console(stderr=True)
    with _models(settings, model, batch, console, watch=watch) as models:
        models()  # there is one, before anything is read
        classifier = Classifier(models, _names_of(settings), batch, top)
        code = _run(classifier, source, console, as_json=as_json)
    if code:
        raise typer.Exit(code)


def _run(classifier: Classifier, source: Source, console: Console, *, as_json: bool) -> int:
    """Answer for everything; the exit code."""
    tally, interrupted = Tally(), False
    try:
        with _interruptible(), _reader_may_leave(), _bar(console, source) as advance:
            for answered in classifier.answers(source.items):
                tally.add(answered)
                for one in answered:
                    _say(one, console, as_json=as_json)
                advance(len(answered))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        with _reader_may_leave():
            _sum_up(tally.summary(), console, as_json=as_json)
    return INTERRUPTED if interrupted else int(tally.skipped > 0)


def _source(pictures: list[Path], frames: str | None) -> Source:
    if frames is not None:
        frame_format = FrameFormat.parse(frames)
        if len(pictures) > 1:
            raise DataError(f"--frames {frames}: {len(pictures)} streams; expected one, - for standard input")
        return streamed(pictures[0] if pictures else STANDARD_INPUT, frame_format)
    if not pictures:
        raise DataError("no pictures: expected files, folders or .npz archives, or --frames for a stream")
    if STANDARD_INPUT in pictures:
        raise DataError("standard input (-) has no header: say what its frames are, for example --frames 640x480:rgb24")
    return stored(pictures)


@contextmanager
def _models(settings: Config, file: Path | None, batch: int, console: Console, *, watch: bool) -> Iterator[Models]:
    if file is not None:
        if watch:
            raise DataError(f"--watch: follows the model installed here, not --model {file}; expected one of the two")
        serving = from_file(file, batch=batch, threads=settings.threads)
        yield lambda: serving
        return

    def tell(note: str) -> None:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)

    runtime, notes = Runtime.restore(settings.state_dir / MODELS_FOLDER, batch=batch, threads=settings.threads)
    for note in notes:
        tell(note)
    if not watch:
        yield lambda: runtime.serving
        return
    with Following(runtime, tell) as following:
        yield following


def _names_of(settings: Config) -> NamesOf:
    """The names in the settings, else those of the folders the device trains on."""

    @cache
    def names_of(classes: int) -> tuple[str, ...] | None:
        if settings.classes is not None:
            return settings.classes if len(settings.classes) == classes else None
        return class_names(settings.data, classes) if settings.data is not None else None

    return names_of


@contextmanager
def _bar(console: Console, source: Source) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal where it is known how many there are; what to call with pictures done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shared = sys.stdout.isatty()  # lines go above the bar; where they go into a file they must stay on their way
    hidden = source.total is None or not console.is_terminal
    with Progress(*columns, console=console, transient=True, redirect_stdout=shared, disable=hidden) as progress:
        task = progress.add_task("", total=source.total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """A reader such as `head` that has seen enough ends the block; what is still to be said to it is dropped."""
    try:
        yield
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say(one: Answer | Skipped, console: Console, *, as_json: bool) -> None:
    if as_json:
        _print(json.dumps(_plain(one)))
    elif isinstance(one, Skipped):
        console.print(f"[yellow]skipped:[/] {escape(_printable(one.reason))}", soft_wrap=True)
    else:
        guesses = ", ".join(f"{_printable(str(guess.label))} {guess.confidence:.1%}" for guess in one.guesses)
        _print(f"{_printable(one.picture)}\t{guesses}\t{one.latency_ms:.2f} ms")


def _plain(one: Answer | Skipped) -> dict[str, Any]:
    if isinstance(one, Skipped):
        return {"picture": one.picture, "skipped": one.reason}
    best = one.guesses[0]
    return {
        "picture": one.picture,
        "class": best.label,
        "confidence": best.confidence,
        "top": [{"class": guess.label, "confidence": guess.confidence} for guess in one.guesses],
        "latency_ms": one.latency_ms,
        "version": one.slot.version,
    }


def _sum_up(summary: Summary, console: Console, *, as_json: bool) -> None:
    if as_json:
        _print(json.dumps({"summary": asdict(summary)}))
    else:
        console.print(escape(str(summary)), soft_wrap=True, highlight=False)


def _print(line: str) -> None:
    print(line, flush=True)


def _printable(text: str) -> str:
    """A name is whatever somebody called a file: no line break, nor a terminal's command, nor half a character."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
