"""`bitfleet-export`: turn weights into a verified ONNX model or a nested file, check one again, look inside one."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.bundle import MODEL_FILE, read_bundle
from export.calibration.command import calibrate, tensors_for
from export.card import card
from export.check import check as check_model
from export.compare_command import compare_models
from export.console import CalibrateOption, JsonOption, PicturesOption, WeightsOption, about, show
from export.describe import identify
from export.errors import ExportError
from export.files import write_together
from export.foreign.command import adopt_checkpoint
from export.inspect_command import inspect_model
from export.model_command import export_models
from export.nested_commands import cut, nested
from export.pictures import chosen
from export.weights import load_weights
from export.writer import parse
from protocol.errors import ProtocolError
from protocol.signing import VerifyKey

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Export models at the bit-width each device can afford, and prove that they compute what was trained.",
    epilog="Start with: bitfleet-export model --weights weights.bf --precision W4A8 --out model.onnx",
)


app.command("model")(export_models)


@app.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported .onnx file, or a bundle's folder.")],
    *,
    weights: WeightsOption,
    pictures: PicturesOption = None,
    calibration: CalibrateOption = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="Who must have signed a bundle: Ed25519 key, 64 hex digits.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check again that a model computes what its weights say: integer models must agree in every bit.

    For example:

        bitfleet-export check model.onnx --weights weights.bf

        bitfleet-export check bundle/ --weights weights.bf --public-key 3b6a…29 --pictures test.npz
    """
    data = _read_model(path, public_key)
    with about(path):
        architecture, precision, _ = identify(parse(data))
    loaded = load_weights(weights)
    if loaded.architecture.spec != architecture.spec:
        raise ExportError(f"{weights} is for {loaded.architecture.spec}: {path} expects {architecture.spec}")
    shown = chosen(pictures, loaded.architecture)
    tensors = tensors_for(loaded, precision, calibration)
    report = check_model(data, architecture, precision, tensors, shown.pictures_NCHW)
    show(
        {
            "file": str(path),
            "precision": str(precision),
            "pictures": shown.source,
            "pictures_checked": report.pictures,
            "bit_equal": report.bit_equal,
            "largest_difference": report.largest_difference,
            "accuracy": None if shown.labels_N is None else report.accuracy(shown.labels_N),
        },
        as_json=as_json,
    )


app.command("inspect")(inspect_model)


@app.command("card")
def write_card(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported .onnx file, or a bundle's folder.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="The Markdown file to write; printed if not given.")] = None,
) -> None:
    """Tell what a model is, on what it was checked, how well it does class by class, and what it needs, as Markdown.

    For example:

        bitfleet-export card model.onnx --out MODEL.md
    """
    with about(path):
        text = card((path / MODEL_FILE if path.is_dir() else path).read_bytes())
    if out is None:
        typer.echo(text, nl=False)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: text.encode()})


app.command()(nested)
app.command("slice")(cut)
app.command("compare")(compare_models)
app.command("adopt")(adopt_checkpoint)
app.command()(calibrate)


def _read_model(path: Path, public_key: str | None) -> bytes:
    if not path.is_dir():
        return path.read_bytes()
    if public_key is None:
        raise ExportError(f"{path} is a bundle: give --public-key, the key that must have signed it")
    try:
        raw = bytes.fromhex(public_key)
    except ValueError as error:
        raise ExportError(f"--public-key {public_key!r}: expected 64 hex digits") from error
    return read_bundle(path, VerifyKey(raw).verify).model


def main() -> None:
    """Entry point: every foreseen failure is one line on standard error and exit code 1."""
    try:
        app()
    except (ExportError, ProtocolError) as error:
        sys.exit(_complain(str(error)))
    except OSError as error:
        sys.exit(_complain(f"{error.filename or 'file'}: {error.strerror or error}"))


def _complain(message: str) -> int:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(f"bitfleet-export: {message}")
    return 1
