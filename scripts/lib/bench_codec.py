"""Speed, size, error and memory of every update codec, against one memcpy of the same fp32 values in the same run.

    scripts/bench/codec                                      ResNet18 at full width, some two minutes
    scripts/bench/codec --quick                              an eighth of the width
    scripts/bench/codec --json docs/results/bench/codec.json

The update is a real one: a few steps of training on real pictures. What is timed is all that a device or the aggregator
does with it, from tensors to the bytes of a payload and back, on one thread. Turns are interleaved: memcpy, then each
recipe once; the ratio within a turn is the result, its median over turns. Error is ‖decoded − update‖²/‖update‖² of the
weights. Memory is the peak of what numpy allocates, the result included, over the size of the update at fp32.
"""

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Final, TypeVar

import numpy as np
from evidence import Figure, write
from real_update import FULL_WIDTH, NARROW, PRECISION, RealUpdate, make
from rich.console import Console
from rich.progress import track
from rich.table import Table

from protocol.architecture import Role, Tensors
from protocol.codec.payload import Content, Header, decode, encode

T = TypeVar("T")

RECIPES: Final = (
    *("fp32", "half", "uniform:8", "uniform:4", "uniform:4+huffman", "uniform:4+rc", "sign", "stosign"),
    *("eden:0.5", "eden:1", "eden:2", "eden:3", "eden:4", "stc:0.0025", "stc:0.0025+rc", "topk:0.01"),
    *("fedzip:z=0.2,k=3", "step:0.002", "step:0.002+rc"),
)
ENCODE_LIMITS: Final[dict[str, float]] = {"sign": 6, "uniform:4": 12, "eden:1": 25, "stc:0.0025": 40}
DECODE_LIMITS: Final[dict[str, float]] = {"sign": 6, "uniform:4": 12}
EDEN_ERRORS: Final = {"eden:1": 0.571, "eden:2": 0.133, "eden:3": 0.036, "eden:4": 0.0096}
ONE_BIT: Final = ("sign", "eden:1")
MAX_ONE_BIT_BPP: Final = 1.10
MAX_MEMORY: Final = 1.5
REPEATS: Final = 7


@dataclass
class Row:
    """What was measured of one recipe."""

    recipe: str
    encode_ratios: list[float] = field(default_factory=list)
    decode_ratios: list[float] = field(default_factory=list)
    size_bytes: int = 0
    error: float = 0.0
    encode_memory: float = 0.0
    decode_memory: float = 0.0


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    console = Console(stderr=True)
    with console.status("training the update"):
        update = make(NARROW if arguments.quick else FULL_WIDTH)
    rows, memcpy_ms = measure(update, arguments.repeats, console)
    show(update, rows, memcpy_ms)
    figures = [figure for row in rows for figure in _figures(update, row, memcpy_ms, limited=not arguments.quick)]
    if arguments.json is not None:
        write(arguments.json, "bench/codec", figures, wall_s=time.perf_counter() - began_s, packages=("numpy",))
    sys.exit(any(figure.met is False for figure in figures))


def measure(update: RealUpdate, repeats: int, console: Console) -> tuple[list[Row], float]:
    """Every recipe, and the median time of a memcpy."""
    rows = [Row(recipe) for recipe in RECIPES]
    flat = np.concatenate([tensor.reshape(-1) for tensor in update.tensors.values()])
    copy = np.empty_like(flat)
    for row in rows:
        _observe(row, update)
    memcpy_ms = []
    for _ in track(range(repeats), "taking turns", console=console):
        for row in rows:
            # What the caches hold after another codec is nobody's merit: the copy before each one is its measure.
            memcpy_ms.append(_clocked_ms(partial(np.copyto, copy, flat))[1])
            payload, encode_ms = _clocked_ms(partial(_encode, row.recipe, update))
            _, decode_ms = _clocked_ms(partial(decode, payload))
            row.encode_ratios.append(encode_ms / memcpy_ms[-1])
            row.decode_ratios.append(decode_ms / memcpy_ms[-1])
    return rows, median(memcpy_ms)


def _observe(row: Row, update: RealUpdate) -> None:
    """Size, error and memory; also the first run, which fills caches."""
    total = 4 * update.parameters
    payload, row.encode_memory = _watched(lambda: _encode(row.recipe, update), total)
    decoded, row.decode_memory = _watched(lambda: decode(payload).tensors, total)
    row.size_bytes = len(payload)
    row.error = _relative_error(update, decoded)


def _relative_error(update: RealUpdate, decoded: Tensors) -> float:
    names = [spec.name for spec in _header("fp32", update).specs if spec.role is Role.WEIGHT]
    lost = sum(float(np.square(decoded[name] - update.tensors[name], dtype=np.float64).sum()) for name in names)
    return lost / sum(float(np.square(update.tensors[name], dtype=np.float64).sum()) for name in names)


def _header(recipe: str, update: RealUpdate) -> Header:
    return Header(update.architecture, recipe, PRECISION, Content.DELTA, update.pictures, seed=1)


def _encode(recipe: str, update: RealUpdate) -> bytes:
    return encode(_header(recipe, update), update.tensors, np.random.default_rng(0))


def _clocked_ms(work: Callable[[], T]) -> tuple[T, float]:
    begin_ns = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - begin_ns) / 1e6


def _watched(work: Callable[[], T], total: int) -> tuple[T, float]:
    """What the work returns, and its peak of memory over `total`."""
    tracemalloc.start()
    try:
        result = work()
        return result, tracemalloc.get_traced_memory()[1] / total
    finally:
        tracemalloc.stop()


def show(update: RealUpdate, rows: Sequence[Row], memcpy_ms: float) -> None:
    """The table."""
    table = Table("recipe", "bpp", "error", "encode ×", "decode ×", "memory ×", "decoding")
    for row in rows:
        table.add_row(
            row.recipe,
            f"{_bpp(update, row):.4g}",
            f"{row.error:.4g}",
            f"{median(row.encode_ratios):.1f}",
            f"{median(row.decode_ratios):.1f}",
            f"{row.encode_memory:.2f}",
            f"{row.decode_memory:.2f}",
        )
    table.caption = (
        f"{update.architecture}: {update.parameters:,} values; × of one memcpy of {4 * update.parameters / 1e6:.1f} MB,"
        f" {memcpy_ms:.2f} ms, and of that size"
    )
    Console().print(table)


def _bpp(update: RealUpdate, row: Row) -> float:
    return 8 * row.size_bytes / update.parameters


def _figures(update: RealUpdate, row: Row, memcpy_ms: float, *, limited: bool) -> Iterator[Figure]:
    name, context = row.recipe, f"{update.architecture}, one thread, memcpy {memcpy_ms:.2f} ms"
    for what, ratios, limits in (
        ("encode", row.encode_ratios, ENCODE_LIMITS),
        ("decode", row.decode_ratios, DECODE_LIMITS),
    ):
        low, _, high = quantiles(ratios, n=4)
        limit = limits.get(name) if limited else None
        yield _figure(
            f"{name}.{what}.over_memcpy", median(ratios), "ratio", limit, len(ratios), f"median of turns; {context}",
            [round(low, 2), round(high, 2)],
        )  # fmt: skip
    bpp_limit = MAX_ONE_BIT_BPP if limited and name in ONE_BIT else None
    note = f"everything in: header, scales, side tensors; {row.size_bytes} bytes"
    yield _figure(f"{name}.bpp", _bpp(update, row), "bits per parameter", bpp_limit, 1, note)
    yield _figure(f"{name}.error", row.error, "of the squared norm", None, 1, "weights of a real update")
    if name in EDEN_ERRORS:
        off = abs(row.error / EDEN_ERRORS[name] - 1)
        yield _figure(f"{name}.error_off", off, "of the published error", 0.05, 1, f"published: {EDEN_ERRORS[name]}")
    for what, peak in (("encode", row.encode_memory), ("decode", row.decode_memory)):
        most = MAX_MEMORY if limited else None
        yield _figure(f"{name}.{what}.memory", peak, "of the update at fp32", most, 1, "peak, the result included")


def _figure(
    name: str, value: float, unit: str, limit: float | None, of: int, note: str, spread: list[float] | None = None
) -> Figure:
    said = None if limit is None else f"<= {limit:g}"
    return Figure(name, round(value, 4), unit, said, None if limit is None else value <= limit, of, spread, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="an eighth of the width, which no limit is for")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"turns (default {REPEATS})")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
