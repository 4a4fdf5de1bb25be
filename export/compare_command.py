"""`bitfleet-export compare`: two exports on the same pictures."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from export.bundle import MODEL_FILE
from export.compare import Comparison, compare, require_alike
from export.console import JsonOption, PicturesOption, about, show
from export.describe import identify
from export.pictures import chosen
from export.writer import parse
from protocol.architecture import Architecture
from protocol.precision import Precision

FLIPS_SHOWN: Final = 10

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An exported .onnx file, or a bundle's folder.")]


def compare_models(
    first: Model, second: Model, *, pictures: PicturesOption = None, as_json: JsonOption = False
) -> None:
    """Compare two exports: how often they agree, which pictures change class, what each takes.

    For example:

        bitfleet-export compare fp32.onnx w4.onnx --pictures test.npz

        bitfleet-export compare monday.onnx friday.onnx --pictures pictures/ --json | jq .flips
    """
    one, other = _read(first), _read(second)
    require_alike(one[1], other[1])
    shown = chosen(pictures, one[1])
    found = compare(one[0], other[0], shown.pictures_NCHW, shown.labels_N)
    facts: dict[str, Any] = {"first": _facts(first, one), "second": _facts(second, other), "pictures": shown.source}
    show(facts | (_json(found) if as_json else _told(found)), as_json=as_json)


def _read(path: Path) -> tuple[bytes, Architecture, Precision]:
    """A model's bytes and what it is."""
    with about(path):
        data = (path / MODEL_FILE if path.is_dir() else path).read_bytes()
        architecture, precision, _ = identify(parse(data))
    return data, architecture, precision


def _facts(path: Path, model: tuple[bytes, Architecture, Precision]) -> str:
    data, architecture, precision = model
    return f"{path}: {precision}, {len(data):,} bytes, {architecture.spec}"


def _json(found: Comparison) -> dict[str, Any]:
    return {
        "pictures_shown": found.pictures,
        "agreement": found.agreement,
        "flips": [
            {"picture": flip.picture, "first": flip.first, "second": flip.second, "label": flip.label}
            for flip in found.flips
        ],
        "repaired": found.repaired,
        "broken": found.broken,
        "largest_difference": found.largest_difference,
        "first_accuracy": found.first_accuracy,
        "second_accuracy": found.second_accuracy,
        "first_cpu_ms": found.speed.first_ms,
        "second_cpu_ms": found.speed.second_ms,
        "speed_up": found.speed.ratio,
        "speed_up_quartiles": found.speed.quartiles,
    }


def _told(found: Comparison) -> dict[str, Any]:
    """For a person."""
    speed, (low, high) = found.speed, found.speed.quartiles
    labelled = found.first_accuracy is not None
    more = f", and {len(found.flips) - FLIPS_SHOWN} more" if len(found.flips) > FLIPS_SHOWN else ""
    flips = "; ".join(f"{flip.picture}: {flip.first} → {flip.second}" for flip in found.flips[:FLIPS_SHOWN])
    accuracies = (found.first_accuracy, found.second_accuracy)
    return {
        "agreement": f"{found.agreement:.2%} of {found.pictures:,} pictures",
        "accuracy": " → ".join(f"{value:.2%}" for value in accuracies if value is not None) if labelled else None,
        "repaired": found.repaired if labelled else None,
        "broken": found.broken if labelled else None,
        "flips": f"{flips}{more}" if flips else "none",
        "largest_difference": found.largest_difference,
        "processor time": f"{speed.first_ms:.3g} → {speed.second_ms:.3g} ms a picture, one thread",
        "speed": f"the second is {speed.ratio:.2f}× as fast (quartiles {low:.2f} to {high:.2f})",
    }
