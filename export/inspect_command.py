"""`bitfleet-export inspect`: the layers of a model file, and what a picture takes."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.bundle import MODEL_FILE
from export.console import JsonOption, about, show
from export.describe import Description, describe, identify
from export.errors import ExportError
from export.measured import Measurement, read_measured
from export.prediction import Figure, Prediction, predict
from export.writer import parse


def inspect_model(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported .onnx file, or a bundle's folder.")],
    *,
    measured: Annotated[
        Path | None,
        typer.Option("--measured", help="What 'bitfleet-edge measure --json' wrote on the device that will run it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a model's layers, their bits, bytes and operations, what a picture takes, and what the file says of itself.

    For example:

        bitfleet-export inspect model.onnx --json | jq .file_bytes

        bitfleet-export inspect w4.onnx --measured monday.json

    Figures are measured where that file has the same network at the same precision, else predicted by the operations
    of the nearest it has; without it, energy is modelled.
    """
    with about(path):
        data = (path / MODEL_FILE if path.is_dir() else path).read_bytes()
        architecture, precision, _ = identify(parse(data))
        description = describe(data)
    found = predict(architecture, precision, _measured(measured))
    if measured is not None and found.latency_ms is None:
        raise ExportError(f"{measured}: measured nothing that compares with {architecture.spec} at {precision}")
    if as_json:
        typer.echo(json.dumps(asdict(description) | _json(found), indent=1))
        return
    console = Console()
    console.print(_layer_table(description))
    console.print(f"a picture takes: latency {escape(_told(found.latency_ms, 'ms'))}", soft_wrap=True, highlight=False)
    console.print(f"                 energy {escape(_told(found.energy_mj, 'mJ'))}", soft_wrap=True, highlight=False)
    console.print(f"the file has {description.file_bytes:,} bytes and says:")
    show(dict(description.metadata), as_json=False)


def _measured(path: Path | None) -> tuple[Measurement, ...]:
    if path is None:
        return ()
    with about(path):
        return read_measured(path.read_bytes())


def _json(found: Prediction) -> dict[str, Any]:
    figures = {"latency_ms": found.latency_ms, "energy_mj": found.energy_mj}
    return {name: None if figure is None else asdict(figure) for name, figure in figures.items()}


def _layer_table(description: Description) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    rows = description.rows
    table.add_column("layer", "all", no_wrap=True)
    table.add_column("kind")
    table.add_column("weight")
    table.add_column("weight bits", justify="right")
    table.add_column("stored bits", justify="right")
    table.add_column("bytes", f"{sum(row.stored_bytes for row in rows):,}", justify="right")
    table.add_column("M mult-adds", _millions(description.multiply_adds), justify="right")
    table.add_column("M BOPs", _millions(description.bops), justify="right")
    for row in rows:
        shape = "×".join(map(str, row.weight_shape or ()))
        bits = (str(row.weight_bits or ""), str(row.activation_bits or ""))
        stored = f"{row.stored_bytes:,}" if row.stored_bytes else ""
        table.add_row(row.name, row.kind, shape, *bits, stored, _millions(row.multiply_adds), _millions(row.bops))
    return table


def _told(figure: Figure | None, unit: str) -> str:
    if figure is None:
        return "not known: give --measured"
    return f"{figure.value:.3g} {unit}, {figure.source} ({figure.basis})"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count else ""
