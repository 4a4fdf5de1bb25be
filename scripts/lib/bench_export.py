"""File size, latency and exactness of exported models at every precision, against fp32 in the same run.

    scripts/bench/export                        full width, some ten seconds
    scripts/bench/export --quick                quarter width, a second or two
    scripts/bench/export --json docs/results/bench/export.json    the same figures for others to check

Latency is CPU time of the calling thread on one thread, batch 1, medians over interleaved repeats: neighbours on the
machine hardly move it. The ratio to fp32 is the result; milliseconds are context.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from evidence import Figure, write
from rich.console import Console
from rich.table import Table

from export import ort
from export.check import Report, check
from export.passes import to_onnx
from export.pictures import synthetic
from export.writer import LOGITS, serialize
from protocol.energy import model_bytes
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import FP32, Precision

PRECISIONS = (FP32, *(Precision(bits, 8) for bits in (8, 4, 2, 1)))
WARM_UP = 3
CHECKED = 16

MAX_OVERHEAD = 1.05
"""A file may exceed its packed weights by this factor: scales, biases, tables and the graph. Full width only."""
MIN_SPEEDUP = 2.0
"""DESIGN section 6: 2.1 times fp32 on AVX2 without VNNI; processors with integer dot products do better."""


@dataclass(frozen=True)
class Measured:
    """One precision: its file, what it took to make and load, its check, and CPU milliseconds per picture."""

    precision: Precision
    file_bytes: int
    export_s: float
    load_s: float
    report: Report
    latency_ms: list[float]


def main() -> None:
    arguments = _arguments()
    started = time.perf_counter()
    measured = measure(width=0.25 if arguments.quick else 1.0, repeats=arguments.repeats)
    figures = list(_figures(measured, with_limits=not arguments.quick))
    show(measured)
    if arguments.json is not None:
        wall_s = time.perf_counter() - started
        write(arguments.json, "bench/export", figures, wall_s=wall_s, packages=("numpy", "onnx", "onnxruntime"))
    sys.exit(any(figure.met is False for figure in figures))


def measure(*, width: float, repeats: int) -> list[Measured]:
    """Export, check and load every precision, then let them take turns."""
    network = resnet18(width=width)
    pictures_NCHW = synthetic(network).pictures_NCHW[:CHECKED]
    sessions, results = [], []
    for precision in PRECISIONS:
        tensors = initial_tensors(network, precision, 0)
        begin = time.process_time()
        model = serialize(to_onnx(network, precision, tensors))
        exported = time.process_time()
        sessions.append(ort.session(model))
        loaded = time.process_time()
        report = check(model, network, precision, tensors, pictures_NCHW)
        results.append(Measured(precision, len(model), exported - begin, loaded - exported, report, []))
    for turn in range(WARM_UP + repeats):
        for session, result in zip(sessions, results, strict=True):
            begin_ns = time.thread_time_ns()
            ort.run(session, pictures_NCHW[:1], [LOGITS])
            if turn >= WARM_UP:
                result.latency_ms.append((time.thread_time_ns() - begin_ns) / 1e6)
    return results


def show(measured: list[Measured]) -> None:
    table = Table("precision", "MB", "export s", "load s", "CPU ms", "× fp32", "max diff", "bit-equal")
    for row in measured:
        latency_ms = median(row.latency_ms)
        table.add_row(
            str(row.precision),
            f"{row.file_bytes / 1e6:.2f}",
            f"{row.export_s:.2f}",
            f"{row.load_s:.2f}",
            f"{latency_ms:.2f}",
            f"{median(_ratios(measured[0], row)):.2f}",
            f"{row.report.largest_difference:.1g}",
            str(row.report.bit_equal),
        )
    Console().print(table)


def _figures(measured: list[Measured], *, with_limits: bool) -> Iterator[Figure]:
    """Sizes, exactness and ratios; `with_limits` where the limits were set for this width."""
    for row in measured:
        name, limit_bytes = str(row.precision), _largest_file(row.precision)
        yield Figure(
            f"{name}.file",
            row.file_bytes,
            "bytes",
            f"<= {limit_bytes}" if with_limits else None,
            row.file_bytes <= limit_bytes if with_limits else None,
            1,
            None,
            "ResNet18, 3x3 stem, 10 classes",
        )
        ratios = _ratios(measured[0], row)
        quartiles = quantiles(ratios, n=4)
        limited = with_limits and not row.precision.is_float
        yield Figure(
            f"{name}.latency.fp32_over",
            round(median(ratios), 3),
            "ratio",
            f">= {MIN_SPEEDUP}" if limited else None,
            median(ratios) >= MIN_SPEEDUP if limited else None,
            len(ratios),
            [round(quartiles[0], 3), round(quartiles[2], 3)],
            f"median of interleaved runs, CPU time, batch 1, one thread; {median(row.latency_ms):.2f} ms",
        )
        if not row.precision.is_float:
            yield Figure(
                f"{name}.largest_difference_to_reference",
                row.report.largest_difference,
                "logit",
                "== 0",
                row.report.bit_equal,
                row.report.pictures,
                None,
                "numpy integer reference, synthetic pictures",
            )


def _largest_file(precision: Precision) -> int:
    return round(MAX_OVERHEAD * model_bytes(resnet18(), precision))


def _ratios(baseline: Measured, row: Measured) -> list[float]:
    """Turn by turn, so that a slow moment of the machine divides itself out."""
    return [slow / fast for slow, fast in zip(baseline.latency_ms, row.latency_ms, strict=True)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="quarter width, without limits on size and speed")
    parser.add_argument("--repeats", type=int, default=40, help="timed runs of each precision (default 40)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
