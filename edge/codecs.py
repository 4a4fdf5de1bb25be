"""What each recipe makes of this device's own last update: its bytes, its error and its time, measured."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge.training.files import read_result
from edge.training.task import TrainerError, TrainingResult
from protocol.architecture import Role, Tensors
from protocol.codec.payload import Content, Header, decode, encode
from protocol.codec.recipe import Recipe

SHOWN: Final = (
    *("fp32", "half", "uniform:8", "uniform:4", "uniform:4+huffman", "uniform:4+rc", "sign", "stosign"),
    *("eden:0.5", "eden:1", "eden:2", "eden:4", "topk:0.01", "stc:0.01", "stc:0.0025", "stc:0.0025+rc"),
    *("fedzip:z=0.2,k=3", "step:0.002+rc"),
)
"""One or two of each kind."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One recipe on one update.

    Attributes:
        recipe: as an offer spells it.
        payload_bytes: length of the payload, header and side tensors in.
        bpp: its bits per parameter of the network.
        error: ‖decoded − update‖²/‖update‖² of the weights, before any error feedback.
        encode_ms: elapsed time, decode_ms likewise.
    """

    recipe: str
    payload_bytes: int
    bpp: float
    error: float
    encode_ms: float
    decode_ms: float


def last_update(work: Path) -> TrainingResult:
    """What this device trained last.

    Raises:
        TrainerError: nothing yet, or the file is damaged.
    """
    path = work / "result.npz"
    if not path.exists():
        raise TrainerError(f"no update in {path}: expected one after the first round that this device trains in")
    return read_result(path)


def measure(update: TrainingResult, recipe: str) -> Measured:
    """Encode and decode an update once.

    Raises:
        Unsupported: there is no such recipe.
        LocalProtocolError: the update cannot be encoded.
    """
    report = update.report
    usual = str(Recipe.parse(recipe))
    header = Header(report.architecture, usual, report.precision, Content.DELTA, report.samples, seed=1)
    began_ns = time.perf_counter_ns()
    payload = encode(header, update.tensors, np.random.default_rng(0))
    encoded_ns = time.perf_counter_ns()
    decoded = decode(payload)
    decoded_ns = time.perf_counter_ns()
    return Measured(
        recipe=usual,
        payload_bytes=len(payload),
        bpp=8 * len(payload) / sum(spec.size for spec in header.specs),
        error=_error([spec.name for spec in header.specs if spec.role is Role.WEIGHT], decoded.tensors, update.tensors),
        encode_ms=(encoded_ns - began_ns) / 1e6,
        decode_ms=(decoded_ns - encoded_ns) / 1e6,
    )


def _error(names: list[str], decoded: Tensors, update: Tensors) -> float:
    lost = sum(float(np.square(decoded[name] - update[name], dtype=np.float64).sum()) for name in names)
    whole = sum(float(np.square(update[name], dtype=np.float64).sum()) for name in names)
    return lost / whole if whole else 0.0
