"""The command that makes a calibrated weights file, and what others need for `--calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from export.calibration.calibrate import calibrated, calibrated_weights, chosen
from export.console import JsonOption, WeightsOption, show
from export.files import write_together
from export.pictures import load_pictures
from export.weights import Weights, load_weights, weights_file
from protocol.architecture import Tensors
from protocol.precision import Precision, join


def tensors_for(weights: Weights, precision: Precision, pictures: Path | None) -> Tensors:
    """The tensors for export at a precision: calibrated on pictures if there are any, else as the file lends them.

    Raises:
        ExportError: weights, precision or pictures do not do.
    """
    if pictures is None:
        return weights.at(precision)
    return calibrated(weights, precision, load_pictures(pictures, weights.architecture).pictures_NCHW)


def calibrate(
    *,
    weights: WeightsOption,
    precision: Annotated[str, typer.Option("--precision", help="W1 to W8 with A1, A2, A3, A4 or A8.")],
    pictures: Annotated[
        Path, typer.Option("--pictures", help="What to calibrate on: an .npz file or a folder of class folders.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The weights file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Quantize after training: steps and moments for a precision nobody trained, from some hundred pictures.

    For example:

        bitfleet-export calibrate --weights adopted.bf --precision W8A8 --pictures photos/ --out w8.bf

        bitfleet-export model --weights w8.bf --pictures test.npz --out w8.onnx

    'bitfleet-export model --calibrate' does both at once; this keeps what was measured, for 'check' and 'nested'.
    """
    loaded = load_weights(weights)
    target = Precision.parse(precision)
    shown = load_pictures(pictures, loaded.architecture)
    made = calibrated_weights(loaded, target, shown.pictures_NCHW)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_together({out: weights_file(made)})
    show(
        {
            "file": str(out),
            "architecture": loaded.architecture.spec,
            "precision": str(target),
            "weights_trained_at": join(loaded.precisions),
            "pictures": shown.source,
            "pictures_seen": len(chosen(shown.pictures_NCHW, loaded.architecture)),
        },
        as_json=as_json,
    )
