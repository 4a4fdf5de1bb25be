"""The commands for nested files: write one, and cut an ONNX model out of one."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from export.bundle import installed_version
from export.console import JsonOption, PicturesOption, WeightsOption, about, show
from export.files import write_together
from export.nested import Slice, export_nested, read_nested
from export.passes.attach_metadata import attach_metadata
from export.pictures import Pictures, chosen
from export.weights import load_weights
from export.writer import serialize
from protocol.precision import Precision, join, parse_several


def nested(
    *,
    weights: WeightsOption,
    out: Annotated[Path, typer.Option("--out", help="The nested file to write.")],
    precisions: Annotated[
        str | None,
        typer.Option("--precisions", help="What it serves, for example W8A8+W4A8+W2A8; the file's own if not given."),
    ] = None,
    pictures: PicturesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one file that serves every precision of a network with nested codes.

    For example:

        bitfleet-export nested --weights weights.bf --precisions W8A8+W4A8+W2A8+W1A8 --out model.bfn

    It is read back and cut at every precision, and each model must agree with the integer reference in every bit.
    'bitfleet-export slice' cuts out the one a device needs.
    """
    loaded = load_weights(weights)
    served = parse_several(precisions) if precisions else loaded.precisions
    shown = chosen(pictures, loaded.architecture)
    made = export_nested(loaded.architecture, served, loaded.at, pictures_NCHW=shown.pictures_NCHW)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: made.data})
    facts = {
        "file": str(out),
        "bytes": len(made.data),
        "sha256": made.digest,
        "architecture": loaded.architecture.spec,
        "pictures": shown.source,
        "pictures_checked": len(shown.pictures_NCHW),
    }
    slices = {str(precision): _slice_facts(part, shown) for precision, part in made.slices.items()}
    show(facts | ({"precisions": slices} if as_json else _told(slices)), as_json=as_json)


def cut(
    path: Annotated[Path, typer.Argument(metavar="NESTED", help="A file that 'bitfleet-export nested' wrote.")],
    *,
    precision: Annotated[str, typer.Option("--precision", help="One of those it serves.")],
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Cut the ONNX model of one precision out of a nested file: the very model that a direct export gives.

    For example:

        bitfleet-export slice model.bfn --precision W4A8 --out w4.onnx
    """
    data = path.read_bytes()
    with about(path):
        nested_model = read_nested(data)
        wanted = Precision.parse(precision)
        graph = nested_model.slice(wanted)
    facts = {
        "architecture": nested_model.architecture.spec,
        "precision": str(wanted),
        "cut_from": hashlib.sha256(data).hexdigest(),
        "version": installed_version(),
    }
    model = serialize(attach_metadata(graph, facts))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: model})
    show(
        {
            "file": str(out),
            "bytes": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
            "precision": str(wanted),
            "file_serves": join(nested_model.profiles),
        },
        as_json=as_json,
    )


def _slice_facts(part: Slice, shown: Pictures) -> dict[str, Any]:
    accuracy = None if shown.labels_N is None else part.report.accuracy(shown.labels_N)
    return {"onnx_bytes": part.model_bytes, "bit_equal": part.report.bit_equal, "accuracy": accuracy}


def _told(slices: dict[str, dict[str, Any]]) -> dict[str, str]:
    """A line per precision, for a person."""
    return {
        name: f"{part['onnx_bytes']:,} bytes as ONNX, bit-equal"
        + ("" if part["accuracy"] is None else f", {part['accuracy']:.2%} right")
        for name, part in slices.items()
    }
