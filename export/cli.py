"""`bitfleet-export`: turn weights into a verified ONNX model or a nested file, check one again, look inside one."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from export.bundle import MODEL_FILE, export_model, read_bundle, write_bundle
from export.calibration.command import calibrate, tensors_for
from export.check import check as check_model
from export.compare_command import compare_models
from export.console import CalibrateOption, JsonOption, PicturesOption, WeightsOption, about, show
from export.describe import Description, describe, identify
from export.errors import ExportError
from export.files import write_together
from export.foreign.command import adopt_checkpoint
from export.nested_commands import cut, nested
from export.pictures import chosen
from export.weights import load_weights
from export.writer import parse
from protocol.errors import ProtocolError
from protocol.precision import Precision, join
from protocol.signing import SigningKey, VerifyKey

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Export models at the bit-width each device can afford, and prove that they compute what was trained.",
    epilog="Start with: bitfleet-export model --weights weights.bf --precision W4A8 --out model.onnx",
)


@app.command()
def model(
    *,
    weights: WeightsOption,
    out: Annotated[
        Path, typer.Option("--out", help="A file that ends in .onnx, or a folder for model, manifest and signature.")
    ],
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="fp32, or W1 to W8 with A1, A2, A3, A4 or A8; the file's first if not given."),
    ] = None,
    pictures: PicturesOption = None,
    calibration: CalibrateOption = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Ed25519 private key, 32 bytes, that signs the manifest of a folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model, after checking it against the integer reference on every picture.

    For example:

        bitfleet-export model --weights weights.bf --out model.onnx

        bitfleet-export model --weights weights.bf --precision W4A8 --pictures test.npz --out w4.onnx

        bitfleet-export model --weights weights.bf --out bundle/ --key aggregator.key

        bitfleet-export model --weights adopted.bf --precision W8A8 --calibrate photos/ --out w8.onnx

    A precision that the file was not trained at means post-training quantization: it works for weights, but loses what
    training at that precision would have kept. Activations keep the bits they were trained at, or, with --calibrate,
    get steps from pictures; so do the moments of the normalisations.
    """
    loaded = load_weights(weights)
    target = Precision.parse(precision) if precision else loaded.precision
    is_file = out.suffix == ".onnx"
    if not is_file and key is None:
        raise ExportError(
            f"--out {out} is a folder and its manifest is signed: give --key, or a name that ends in .onnx"
        )
    shown = chosen(pictures, loaded.architecture)
    made = export_model(
        loaded.architecture,
        target,
        tensors_for(loaded, target, calibration),
        pictures_NCHW=shown.pictures_NCHW,
        labels_N=shown.labels_N,
        metadata={
            "moments": "calibrated" if calibration else str(loaded.lender(target)),
            "checked_on": "synthetic" if pictures is None else "real",
        },
    )
    if is_file:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_together({out: made.model})
    elif key is not None:
        write_bundle(out, made, _signing_key(key).sign)
    show(
        {
            "file": str(out if is_file else out / MODEL_FILE),
            "bytes": len(made.model),
            "sha256": made.digest,
            "precision": str(target),
            "weights_trained_at": join(loaded.precisions),
            "calibrated_on": None if calibration is None else str(calibration),
            "pictures": shown.source,
            "pictures_checked": made.report.pictures,
            "bit_equal": made.report.bit_equal,
            "largest_difference": made.report.largest_difference,
            "accuracy": made.accuracy,
        },
        as_json=as_json,
    )


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


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="An exported .onnx file, or a bundle's folder.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show a model's layers, their bits, bytes and operations, and what the file says about itself.

    For example:

        bitfleet-export inspect model.onnx --json | jq .file_bytes
    """
    with about(path):
        description = describe((path / MODEL_FILE if path.is_dir() else path).read_bytes())
    if as_json:
        typer.echo(json.dumps(asdict(description), indent=1))
        return
    console = Console()
    console.print(_layer_table(description))
    console.print(f"the file has {description.file_bytes:,} bytes and says:")
    show(dict(description.metadata), as_json=False)


app.command()(nested)
app.command("slice")(cut)
app.command("compare")(compare_models)
app.command("adopt")(adopt_checkpoint)
app.command()(calibrate)


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


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count else ""


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


def _signing_key(path: Path) -> SigningKey:
    return SigningKey(path.read_bytes())


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
