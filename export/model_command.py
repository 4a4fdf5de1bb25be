"""`bitfleet-export model`: one precision as a file or a signed bundle, or several as a folder of either."""

from pathlib import Path
from typing import Annotated, Any

import typer

from export.batch import ExportJob, export_all
from export.bundle import MODEL_FILE, Export, write_bundle
from export.cache import Cache
from export.calibration.command import tensors_for
from export.console import CacheOption, CalibrateOption, JsonOption, PicturesOption, WeightsOption, progress_bar, show
from export.errors import ExportError
from export.files import write_together
from export.pictures import Pictures, chosen
from export.weights import Weights, load_weights
from protocol.precision import Precision, join
from protocol.signing import SigningKey


def export_models(
    *,
    weights: WeightsOption,
    out: Annotated[
        Path, typer.Option("--out", help="A file that ends in .onnx, or a folder for model, manifest and signature.")
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, or W1 to W8 with A1, A2, A3, A4 or A8; several with commas; the file's first if not given.",
        ),
    ] = None,
    pictures: PicturesOption = None,
    calibration: CalibrateOption = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Ed25519 private key, 32 bytes, that signs the manifest of a folder.")
    ] = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model, after checking it against the integer reference on every picture.

    For example:

        bitfleet-export model --weights weights.bf --out model.onnx

        bitfleet-export model --weights weights.bf --precision W4A8 --pictures test.npz --out w4.onnx

        bitfleet-export model --weights weights.bf --precision W8A8,W4A8,W1A8 --out models/

        bitfleet-export model --weights weights.bf --out bundle/ --key aggregator.key

        bitfleet-export model --weights adopted.bf --precision W8A8 --calibrate photos/ --out w8.onnx

    Several precisions are made on all cores, each in a file of its name; with --key each in a bundle of its name.

    A precision that the file was not trained at means post-training quantization: it works for weights, but loses what
    training at that precision would have kept. Activations keep the bits they were trained at, or, with --calibrate,
    get steps from pictures; so do the moments of the normalisations.
    """
    loaded = load_weights(weights)
    targets = _targets(precision, loaded)
    several = len(targets) > 1
    signing_key = _signing_key(out, key, targets)
    shown = chosen(pictures, loaded.architecture)
    jobs = [_job(loaded, target, shown, calibration, real=pictures is not None) for target in targets]
    with progress_bar("exporting") as progress:
        outcomes = export_all(jobs, cache=None if cache is None else Cache(cache), progress=progress)
    made = {target: each for target, each in zip(targets, outcomes, strict=True) if isinstance(each, Export)}
    failed = {target: each for target, each in zip(targets, outcomes, strict=True) if isinstance(each, ExportError)}
    files = {target: _write(out, target, each, signing_key, several=several) for target, each in made.items()}
    common = {
        "weights_trained_at": join(loaded.precisions),
        "calibrated_on": None if calibration is None else str(calibration),
        "pictures": shown.source,
    }
    if several:
        models = [_facts(files[target], target, each) | _found(each) for target, each in made.items()]
        wrong = [{"precision": str(target), "error": str(error)} for target, error in failed.items()]
        listed = {"models": models, "failed": wrong} if as_json else _told(models)
        show(common | listed, as_json=as_json)
    elif made:
        (target,) = targets
        show(_facts(files[target], target, made[target]) | common | _found(made[target]), as_json=as_json)
    if failed:
        raise ExportError("; ".join(map(str, failed.values())))


def _targets(names: str | None, weights: Weights) -> list[Precision]:
    if names is None:
        return [weights.precision]
    return list(dict.fromkeys(Precision.parse(name.strip()) for name in names.split(",")))


def _signing_key(out: Path, key: Path | None, targets: list[Precision]) -> SigningKey | None:
    """What signs manifests; None where files are written bare."""
    is_file, several = out.suffix == ".onnx", len(targets) > 1
    if several and is_file:
        raise ExportError(f"--out {out} is one file for {join(targets)}: expected a folder")
    if not several and not is_file and key is None:
        raise ExportError(
            f"--out {out} is a folder and its manifest is signed: give --key, or a name that ends in .onnx"
        )
    return None if key is None or is_file else SigningKey(key.read_bytes())


def _job(weights: Weights, target: Precision, shown: Pictures, calibration: Path | None, *, real: bool) -> ExportJob:
    metadata = {
        "moments": "calibrated" if calibration else str(weights.lender(target)),
        "checked_on": "real" if real else "synthetic",
    }
    tensors = tensors_for(weights, target, calibration)
    return ExportJob(weights.architecture, target, tensors, shown.pictures_NCHW, shown.labels_N, metadata)


def _write(out: Path, target: Precision, made: Export, key: SigningKey | None, *, several: bool) -> Path:
    """The model's file, after it is written."""
    if key is not None:
        folder = out / str(target) if several else out
        write_bundle(folder, made, key.sign)
        return folder / MODEL_FILE
    file = out / f"{target}.onnx" if several else out
    file.parent.mkdir(parents=True, exist_ok=True)
    write_together({file: made.model})
    return file


def _facts(file: Path, target: Precision, made: Export) -> dict[str, Any]:
    return {"file": str(file), "bytes": len(made.model), "sha256": made.digest, "precision": str(target)}


def _found(made: Export) -> dict[str, Any]:
    return {
        "pictures_checked": made.report.pictures,
        "bit_equal": made.report.bit_equal,
        "largest_difference": made.report.largest_difference,
        "accuracy": made.accuracy,
    }


def _told(models: list[dict[str, Any]]) -> dict[str, str]:
    """A line per file, for a person."""
    return {
        each["precision"]: f"{each['file']}: {each['bytes']:,} bytes"
        + (", bit-equal" if each["bit_equal"] else f", logits within {each['largest_difference']:g}")
        + ("" if each["accuracy"] is None else f", {each['accuracy']:.2%} right")
        for each in models
    }
