"""What the commands of `bitfleet-export` share: common options, and facts shown to a person or a script."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from export.errors import ExportError

WeightsOption = Annotated[
    Path, typer.Option("--weights", help="Weights, as 'bitfleet-aggregator models --download' writes them.")
]
PicturesOption = Annotated[
    Path | None,
    typer.Option(
        "--pictures",
        help="Pictures to check on: an .npz file (pictures uint8 NCHW, perhaps labels) or a folder of class folders. "
        "Without it, made-up pictures.",
    ),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(
        "--calibrate",
        help="Pictures, as for --pictures, that steps and moments are set from: for a precision nobody trained.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="BITFLEET_EXPORT_CACHE",
        help="Folder that keeps exports by what decides their bytes, and is looked into first. It may be deleted.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

_FLOATS: Final = {
    "largest_difference": "{:g}",
    "accuracy": "{:.2%}",
    "border_share": "{:.1%} of the first layer's outputs",
    "border_shift": "{:.2g} deviations",
}


def show(facts: dict[str, Any], *, as_json: bool) -> None:
    """Facts as JSON for a script or as two columns for a person; unknown ones are left out for the person."""
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    table = Table("name", Column("value", overflow="fold"), show_header=False, box=None)
    for name, value in facts.items():
        if value is not None:
            text = _FLOATS[name].format(value) if name in _FLOATS and isinstance(value, float) else str(value)
            table.add_row(name.replace("_", " "), text)
    Console().print(table)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where a person looks at it; takes how many are done and how many there will be."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Name the file in what is said about its content."""
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error
