"""How good a global model is at one precision, on pictures no device has.

What the exporter writes is judged as the file a device would run, in integers, by ONNX Runtime. The rest (float
activations, 16-bit weights, and `fbq`, whose codes are not the exporter's) is judged by the trainer's own network.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from aggregator.model import GlobalModel
from edge.data import Pictures
from edge.training.methods import method_for
from edge.training.model import Model
from export import ort
from export.arithmetic import require_supported
from export.errors import ExportError
from export.passes import to_onnx
from export.writer import LOGITS, serialize
from protocol.method import Method
from protocol.precision import Float32, Precision
from simulation.partition import gather
from simulation.setup import Setup

INTEGER: Final = "integer"
FLOAT: Final = "float"
BATCH: Final = 250
"""Pictures at once: activations of a full ResNet18 stay below 300 MB."""
SHEET: Final = 2500
"""Pictures that one worker judges in one go: a quarter of the usual test, so that one precision is work for several."""


def arithmetic_of(method: Method, precision: Precision) -> str:
    """`integer` where the exported file is judged as such, else `float`."""
    return INTEGER if _is_exported(method, precision) and not precision.is_float else FLOAT


def sheets_of(pictures: int) -> list[slice]:
    """All test pictures in pieces; they do not depend on how many workers there are."""
    return [slice(start, min(start + SHEET, pictures)) for start in range(0, pictures, SHEET)]


def right(setup: Setup, model: bytes, precision: Precision, sheet: slice, processor: str) -> int:
    """How many pictures of a sheet the model names right.

    Args:
        setup: of the run; says which pictures and which method.
        model: a `GlobalModel` file with a calibrated profile for `precision`.
        precision: to judge at.
        sheet: which of the test pictures.
        processor: torch's name of what computes where the exported file does not.
    """
    network, test = GlobalModel.from_bytes(model), gather(setup).test
    pictures_NCHW, method = test.pictures_NCHW[sheet], Method.parse(setup.method)
    if _is_exported(method, precision):
        logits_NL = _of_file(network, precision, pictures_NCHW)
    else:
        logits_NL = _of_trainer(network, precision, method, pictures_NCHW, processor)
    return int((logits_NL.argmax(axis=1) == test.labels_N[sheet]).sum())


def _is_exported(method: Method, precision: Precision) -> bool:
    try:
        require_supported(precision)
    except ExportError:
        return False
    return method.base != "fbq"


def _of_file(model: GlobalModel, precision: Precision, pictures_NCHW: Pictures) -> Float32:
    session = ort.session(serialize(to_onnx(model.network, precision, model.tensors(precision))))
    return np.concatenate([ort.run(session, batch, [LOGITS])[0] for batch in _batches(pictures_NCHW)])


@torch.no_grad()
def _of_trainer(
    model: GlobalModel, precision: Precision, method: Method, pictures_NCHW: Pictures, processor: str
) -> Float32:
    trained = Model(model.network, (precision,), model.tensors(precision), processor)
    judged = method_for(method, trained, seed=0)  # nothing is drawn where nothing is trained
    batches = (torch.from_numpy(batch).to(processor) for batch in _batches(pictures_NCHW))
    return torch.cat([judged.logits(trained.own, batch) for batch in batches]).cpu().numpy()


def _batches(pictures_NCHW: Pictures) -> Iterator[Pictures]:
    return (pictures_NCHW[start : start + BATCH] for start in range(0, len(pictures_NCHW), BATCH))
