"""Latency of exported models against ONNX Runtime's fp32 of the same network in the same run, beside its rivals.

    scripts/bench/inference                                            full width, 32×32 and 224×224, some minutes
    scripts/bench/inference --quick                                    quarter width, 32×32
    scripts/bench/inference --json docs/results/bench/inference.json

Batch 1, one thread, CPU time of the whole process, in which nothing else computes. Subjects take turns, so that every
ratio is one within a turn; its median over turns is the result, and milliseconds are context. A turn begins with an
inference that is not timed: what is measured is one after another, as of a camera's frames, and not the first after two
dozen other models have been through the caches.

W1A1 is run twice: by our kernels (`protocol/operators`), and in the standard operators that its file falls back on.
Rivals: ONNX Runtime's own `quantize_static` (QDQ, uint8 × int8 per channel, on synthetic pictures), and OpenVINO with
our fp32 file and with that one; it reads no QLinearConv per channel. Weights are those that training starts from:
latency does not depend on them.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from evidence import Figure, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export import ort
from export.passes import to_onnx
from export.pictures import synthetic
from export.writer import LOGITS, PICTURES, serialize
from protocol import operators
from protocol.architecture import Architecture
from protocol.initial import initial_tensors
from protocol.networks import parse
from protocol.precision import Precision

Pictures = npt.NDArray[np.uint8]
Infer = Callable[[Pictures], Any]

REPEATS: Final = 30
WARM_UP: Final = 3
IN_A_ROW: Final = 3
CALIBRATION: Final = 16

RESNET: Final = "resnet18 32×32"
BINARY: Final = "binary18 32×32"
RESNET_224: Final = "resnet18 224×224"
BINARY_224: Final = "binary18 224×224"
SPECS: Final = {
    RESNET: "resnet18:width={width},stem=3x3,input=3x32x32,classes=10",
    BINARY: "binary18:width={width},input=3x32x32,classes=10",
    RESNET_224: "resnet18:width={width},stem=7x7,input=3x224x224,classes=1000",
    BINARY_224: "binary18:width={width},stem=3x3s2,input=3x224x224,classes=1000",
}
LARGE: Final = (RESNET_224, BINARY_224)

FP32: Final = "fp32"
KERNELS: Final = "W1A1"
STANDARD: Final = "W1A1, standard operators"
STATIC: Final = "quantize_static"
OPENVINO: Final = "OpenVINO, {}"


@dataclass(frozen=True)
class Limit:
    """A subject is at least `ratio` times as fast as another of its network."""

    network: str
    subject: str
    over: str
    ratio: float


LIMITS: Final = (
    Limit(RESNET, "W8A8", FP32, 2.05),
    Limit(BINARY, KERNELS, FP32, 8.0),
    Limit(BINARY, KERNELS, "W8A8", 3.5),
    Limit(BINARY_224, KERNELS, FP32, 6.0),
)
FURTHER: Final = ((RESNET, KERNELS, "W8A8"), (RESNET, "W8A8", STATIC), (RESNET, "W8A8", OPENVINO.format(STATIC)))
"""Ratios without a limit."""


@dataclass
class Subject:
    """A network at one precision in one runtime, and the CPU milliseconds of its turns."""

    network: str
    name: str
    infer: Infer
    picture: Pictures
    file_bytes: int
    latency_ms: list[float] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    console = Console(stderr=True)
    names = [name for name in SPECS if not (arguments.quick and name in LARGE)]
    subjects: list[Subject] = []
    for name in names:
        with console.status(f"exporting {name}"):
            subjects += _subjects(name, parse(SPECS[name].format(width=0.25 if arguments.quick else 1)))
    for turn in track(range(WARM_UP + arguments.repeats), "taking turns", console=console):
        for subject in subjects:
            subject.infer(subject.picture)
            begin_ns = time.process_time_ns()
            for _ in range(IN_A_ROW):
                subject.infer(subject.picture)
            if turn >= WARM_UP:
                subject.latency_ms.append((time.process_time_ns() - begin_ns) / 1e6 / IN_A_ROW)
    show(subjects)
    figures = list(_figures({(each.network, each.name): each for each in subjects}, limited=not arguments.quick))
    if arguments.json is not None:
        packages = ("numpy", "onnx", "onnxruntime", "openvino")
        write(arguments.json, "bench/inference", figures, wall_s=time.perf_counter() - began_s, packages=packages)
    sys.exit(any(figure.met is False for figure in figures))


def _subjects(name: str, network: Architecture) -> Iterator[Subject]:
    picture = synthetic(network).pictures_NCHW[:1]
    models = {precision: _exported(network, precision) for precision in (FP32, "W8A8", KERNELS)}
    for precision, model in models.items():
        yield Subject(name, precision, _onnxruntime(model), picture, len(model))
    packed, static = models[KERNELS], _quantized(models[FP32], network)
    yield Subject(name, STANDARD, _onnxruntime(packed, standard=True), picture, len(packed))
    yield Subject(name, STATIC, _onnxruntime(static), picture, len(static))
    for of, model in ((FP32, models[FP32]), (STATIC, static)):
        yield Subject(name, OPENVINO.format(of), _openvino(model), picture, len(model))


def _exported(network: Architecture, precision: str) -> bytes:
    wanted = Precision.parse(precision)
    return serialize(to_onnx(network, wanted, initial_tensors(network, wanted, 0)))


def _onnxruntime(model: bytes, *, standard: bool = False) -> Infer:
    session = ort.session(model, standard=standard)
    return lambda picture: ort.run(session, picture, [LOGITS])


def _openvino(model: bytes) -> Infer:
    import openvino  # noqa: PLC0415 (slow to load)

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda picture: request.infer({PICTURES: picture})


def _quantized(model: bytes, network: Architecture) -> bytes:
    """ONNX Runtime's static quantization of our fp32 file, as its documentation recommends it for x86."""
    from onnxruntime.quantization import (  # noqa: PLC0415 (imports much)
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter([{PICTURES: row[None]} for row in synthetic(network).pictures_NCHW[:CALIBRATION]])

        def get_next(self) -> dict[str, Pictures] | None:
            return next(self.rows, None)

    logging.disable(logging.WARNING)  # it recommends a preprocessing that folds what our exporter has folded
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()


def show(subjects: list[Subject]) -> None:
    console = Console()
    for network in dict.fromkeys(subject.network for subject in subjects):
        rows = [subject for subject in subjects if subject.network == network]
        table = Table("runs as", "MB", "CPU ms", "× fp32", title=network, title_justify="left")
        for row in rows:
            speed = median(_ratios(row, rows[0]))
            table.add_row(row.name, f"{row.file_bytes / 1e6:.2f}", f"{median(row.latency_ms):.2f}", f"{speed:.2f}")
        console.print(table)
    console.print(f"binary convolutions: {operators.operators(onnxruntime.__version__).note}")


def _figures(subjects: dict[tuple[str, str], Subject], *, limited: bool) -> Iterator[Figure]:
    limits = {(limit.network, limit.subject, limit.over): limit.ratio for limit in LIMITS}
    compared = dict.fromkeys(
        [*limits, *((network, name, FP32) for network, name in subjects if name != FP32), *FURTHER]
    )
    for network, name, over in compared:
        if (network, name) not in subjects:
            continue
        subject = subjects[network, name]
        ratios, limit = _ratios(subject, subjects[network, over]), limits.get((network, name, over))
        quartiles = quantiles(ratios, n=4)
        yield Figure(
            f"{_slug(network)}.{_slug(name)}.{_slug(over)}_over",
            round(median(ratios), 3),
            "ratio",
            f">= {limit}" if limited and limit else None,
            median(ratios) >= limit if limited and limit else None,
            len(ratios),
            [round(quartiles[0], 3), round(quartiles[2], 3)],
            f"median of interleaved turns, CPU time, batch 1, one thread; {median(subject.latency_ms):.2f} ms",
        )


def _ratios(subject: Subject, usual: Subject) -> list[float]:
    """How many times as fast as the usual one, turn by turn."""
    return [slow / fast for slow, fast in zip(usual.latency_ms, subject.latency_ms, strict=True)]


def _slug(name: str) -> str:
    return name.replace("×", "x").replace(", ", "-").replace(" ", "-")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="quarter width and small pictures, without limits")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"timed turns (default {REPEATS})")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
