"""The command that takes a foreign network in."""

from pathlib import Path
from typing import Annotated

import typer

from export.console import JsonOption, show
from export.errors import ExportError
from export.files import write_together
from export.foreign.adopt import adopt
from export.foreign.checkpoint import READERS, read_checkpoint
from export.foreign.preprocess import EXAMPLE, Preprocessing
from export.weights import weights_file
from protocol.architecture import Shape


def adopt_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help=f"A trained ResNet18: {', '.join(READERS)}.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="The weights file to write.")],
    normalize: Annotated[str, typer.Option("--normalize", help=f"How its pictures were normalised: {EXAMPLE}.")],
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input", help="Of a picture, CxHxW; as the file says, or 224 pixels with a 7×7 stem and 32 with a 3×3."
        ),
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="For a new task: a fresh classifier of so many classes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take in a ResNet18 trained elsewhere, as torchvision and timm name its layers. Nothing in the file is run.

    For example:

        bitfleet-export adopt resnet18.pth --normalize imagenet --out weights.bf

        bitfleet-export adopt cifar.safetensors --normalize 0.5,0.5,0.5/0.25,0.25,0.25 --input 3x32x32 --out weights.bf

    Then export it with 'bitfleet-export model --calibrate', or begin a fleet with 'bitfleet-aggregator serve --start'.
    Our pictures are not normalised: that goes into the first layer and into the grey that stands for 0. The result is
    the same but along the edges of a picture, where the network now sees that grey instead of each colour's own mean.
    The answer says how far off that is.
    """
    found = read_checkpoint(checkpoint)
    preprocessing = Preprocessing.parse(normalize)
    shape = None if input_shape is None else _shape(input_shape)
    try:
        made = adopt(found, preprocessing, input_shape=shape, classes=classes)
    except ExportError as error:
        raise ExportError(f"{checkpoint}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: weights_file(made.weights)})
    table = made.architecture
    show(
        {
            "file": str(out),
            "read_as": found.format,
            "architecture": table.spec,
            "layers": sum(layer.weight_shape is not None for layer in table.layers),
            "parameters": table.parameters,
            "classifier": "fresh" if made.fresh_classifier else "as trained",
            "normalize": normalize,
            "border_share": made.border.share,
            "border_shift": made.border.shift,
        },
        as_json=as_json,
    )


def _shape(text: str) -> Shape:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise ExportError(f"--input {text!r}: expected CxHxW, for example 3x224x224")
    return tuple(map(int, parts))
