"""Time and peak memory of a training step of ResNet18, against fp32 and against brevitas in the same run.

    scripts/bench/training                                       widths 16, 32 and 64, some ten minutes
    scripts/bench/training --quick                               width 16, under a minute
    scripts/bench/training --json docs/results/bench/training.json

Every row is a process of its own with one thread: the processes take turns, one step each, and the ratio of a turn to
the fp32 step of the same turn is the result, its median over turns. Time is CPU time. Memory is the peak of the
resident set over what the process held before the network was made. `fp32` and `brevitas` are plain `torch.nn`; all
rows have the same layers, batch norm over batches, channels_last and SGD with Nesterov momentum.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median, quantiles
from typing import Any, Final

import numpy as np
import psutil
import torch
from evidence import Figure, write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from edge.training.methods import method_for
from edge.training.model import Model
from edge.training.optimizer import MOMENTUM, optimizer_for
from protocol import networks
from protocol.architecture import INPUT, INPUT_STEP, NORM_EPSILON, Architecture, Kind, Layer
from protocol.initial import initial_tensors
from protocol.method import Method
from protocol.precision import Precision

FULL_WIDTH: Final = 64
"""Channels of the first stage at width 1."""
WIDTHS: Final = (16, 32, 64)
LIMITED: Final = 64
"""The width that the limits are for."""
MAX_TIME: Final = 1.15
MAX_MEMORY: Final = 1.3
BATCH: Final = 32
LEARNING_RATE: Final = 0.01
WARM_UP: Final = 2
REPEATS: Final = 9

RIVAL: Final = "brevitas W8A8"
BASELINE: Final = "fp32"
OURS: Final = ("fp32", "W8A8", "W4A4", "W1A8")
"""Precisions of our own network; at fp32 it shows what the table costs over plain modules."""

Step = Callable[[Tensor, Tensor], None]


@dataclass
class Row:
    """One network of one width: CPU milliseconds of each turn and peak megabytes."""

    name: str
    step_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    widths = WIDTHS[:1] if arguments.quick else WIDTHS
    rows = {width: measure(width, arguments.repeats) for width in widths}
    figures = [figure for width in widths for figure in _figures(width, rows[width])]
    show(rows)
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/training", figures, wall_s=wall_s, packages=("torch", "brevitas"))
    sys.exit(any(figure.met is False for figure in figures))


def measure(width: int, repeats: int) -> list[Row]:
    """Let a process for each network take turns."""
    rows = [Row(name) for name in (BASELINE, *(f"bitfleet {name}" for name in OURS), RIVAL)]
    spec = f"resnet18:width={width / FULL_WIDTH:g},stem=3x3,input=3x32x32,classes=10"
    context = get_context("spawn")
    with ExitStack() as stack:
        pipes = []
        for row in rows:
            pipe, far = context.Pipe()
            stack.enter_context(pipe)
            process = context.Process(target=_take_turns, args=(far, spec, row.name), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)  # it has nothing to lose, and waits for ever if another one failed
            far.close()
            pipes.append(pipe)
        for turn in track(range(WARM_UP + repeats), f"width {width}", console=Console(stderr=True)):
            for row, pipe in zip(rows, pipes, strict=True):
                step_ms = _asked(row, pipe, another=True)
                if turn >= WARM_UP:
                    row.step_ms.append(step_ms)
        for row, pipe in zip(rows, pipes, strict=True):
            row.peak_mb = _asked(row, pipe, another=False)
    return rows


def _asked(row: Row, pipe: Connection, *, another: bool) -> float:
    """The answer of a row's process to whether it shall take another step."""
    try:
        pipe.send(another)
        answer: float = pipe.recv()
    except (EOFError, OSError):
        sys.exit(f"the process of {row.name} ended; what it said is above")
    return answer


def _take_turns(pipe: Connection, spec: str, name: str) -> None:
    """One process: a step whenever it is asked, answered with its CPU milliseconds; at last its peak megabytes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    architecture = networks.parse(spec)
    _step_of(networks.parse("resnet18:width=0.0625,stem=3x3,input=3x32x32,classes=10"), name)(*_batch())
    before_mb = psutil.Process().memory_info().rss / 1e6
    step, batch = _step_of(architecture, name), _batch()
    while pipe.recv():
        begin_ns = time.process_time_ns()
        step(*batch)
        pipe.send((time.process_time_ns() - begin_ns) / 1e6)
    pipe.send(getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before_mb)


def _batch() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (BATCH, 3, 32, 32), dtype=np.uint8)
    return torch.from_numpy(pictures), torch.from_numpy(rng.integers(0, 10, BATCH))


def _step_of(architecture: Architecture, name: str) -> Step:
    maker, _, precision = name.rpartition(" ")
    if maker == "bitfleet":
        return _ours(architecture, Precision.parse(precision))
    return _plain(_Plain(architecture, _Floating() if name == BASELINE else _brevitas()))


def _ours(architecture: Architecture, precision: Precision) -> Step:
    model = Model(architecture, (precision,), initial_tensors(architecture, precision, 0))
    method = method_for(Method.parse("fp32" if precision.is_float else "oqfl"), model, 0)
    optimizer = optimizer_for(model, LEARNING_RATE)

    def step(pictures: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        for term in method.terms(pictures, labels):
            term.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _plain(network: nn.Module) -> Step:
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)

    def step(pictures: Tensor, labels: Tensor) -> None:
        x = pictures.to(torch.float32, memory_format=torch.channels_last).mul_(INPUT_STEP)
        optimizer.zero_grad()
        functional.cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


class _Floating:
    """Modules at full precision."""

    def convolution(self, layer: Layer) -> nn.Module:
        return nn.Conv2d(*_sizes(layer), bias=False)

    def linear(self, layer: Layer) -> nn.Module:
        return nn.Linear(layer.in_shape[0], layer.out_shape[0])

    def relu(self) -> nn.Module:
        return nn.ReLU(inplace=True)

    def branch(self) -> nn.Module:
        return nn.Identity()


def _brevitas() -> "_Floating":
    """Its modules at W8A8: learned activation steps, weight steps per channel, as its own ResNet examples set them."""
    from brevitas import nn as quantized  # noqa: PLC0415 (only its own process carries it)
    from brevitas.quant import (  # noqa: PLC0415
        Int8ActPerTensorFloat,
        Int8WeightPerChannelFloat,
        Uint8ActPerTensorFloat,
    )

    class _Quantized(_Floating):
        def convolution(self, layer: Layer) -> nn.Module:
            return quantized.QuantConv2d(*_sizes(layer), bias=False, weight_quant=Int8WeightPerChannelFloat)

        def linear(self, layer: Layer) -> nn.Module:
            sizes = (layer.in_shape[0], layer.out_shape[0])
            return quantized.QuantLinear(*sizes, bias=True, weight_quant=Int8WeightPerChannelFloat)

        def relu(self) -> nn.Module:
            return quantized.QuantReLU(act_quant=Uint8ActPerTensorFloat)

        def branch(self) -> nn.Module:
            return quantized.QuantIdentity(act_quant=Int8ActPerTensorFloat)

    return _Quantized()


class _Plain(nn.Module):
    """The table as modules."""

    def __init__(self, architecture: Architecture, maker: _Floating) -> None:
        super().__init__()
        self._rows = architecture.at(Precision(8, 8)).layers
        self._parts = nn.ModuleDict()
        for row in self._rows:
            parts: list[nn.Module] = []
            if row.kind is Kind.CONV:
                parts = [maker.convolution(row), nn.BatchNorm2d(row.out_shape[0], eps=NORM_EPSILON)]
            elif row.kind is Kind.LINEAR:
                parts = [maker.linear(row)]
            if row.scale and row.kind is not Kind.MAXPOOL and row.kind is not Kind.AVGPOOL:
                parts.append(maker.relu() if row.relu else maker.branch())
            self._parts[row.name.replace(".", "_")] = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        outputs: dict[str, Any] = {INPUT: x}
        for row in self._rows:
            y = outputs[row.inputs[0]]
            if _skips(row):
                y = y[:, :, :: row.stride, :: row.stride].contiguous(memory_format=torch.channels_last)
            if row.kind is Kind.ADD:
                y = y + outputs[row.inputs[1]]
            elif row.kind is Kind.AVGPOOL:
                y = y.mean((2, 3))
            outputs[row.name] = self._parts[row.name.replace(".", "_")](y)
        return outputs[self._rows[-1].name]


def _sizes(layer: Layer) -> tuple[int, int, int, int, int]:
    return layer.in_shape[0], layer.out_shape[0], layer.kernel, 1 if _skips(layer) else layer.stride, layer.padding


def _skips(layer: Layer) -> bool:
    """Whether it is a strided 1×1 convolution, which torch may compute past its buffers (DECISIONS.md, 23)."""
    return layer.kind is Kind.CONV and layer.kernel == 1 and layer.stride > 1


def show(rows: dict[int, list[Row]]) -> None:
    """The table."""
    table = Table("width", "network", "CPU ms", "× fp32", "peak MB", "× fp32")
    for width, measured in rows.items():
        for row in measured:
            table.add_row(
                str(width),
                row.name,
                f"{median(row.step_ms):.0f}",
                f"{median(_ratios(row, measured[0])):.2f}",
                f"{row.peak_mb:.0f}",
                f"{row.peak_mb / measured[0].peak_mb:.2f}",
            )
        table.add_section()
    Console().print(table)


def _figures(width: int, rows: Sequence[Row]) -> Iterator[Figure]:
    baseline, context = rows[0], f"ResNet18, batch {BATCH}, 32x32, channels_last, one thread, against fp32 of torch.nn"
    for row in rows[1:]:
        name = f"width{width}.{row.name.replace(' ', '.')}"
        limited = width == LIMITED and row.name == "bitfleet W8A8"
        ratios = _ratios(row, baseline)
        low, _, high = quantiles(ratios, n=4)
        time_note = f"CPU time, median of interleaved turns; {median(row.step_ms):.0f} ms; {context}"
        yield _figure(
            f"{name}.time", median(ratios), MAX_TIME if limited else None, len(ratios), [low, high], time_note
        )
        peak = row.peak_mb / baseline.peak_mb
        peak_note = f"peak resident set over that before the network was made; {row.peak_mb:.0f} MB; {context}"
        yield _figure(f"{name}.memory", peak, MAX_MEMORY if limited else None, 1, None, peak_note)


def _figure(name: str, value: float, limit: float | None, of: int, spread: list[float] | None, note: str) -> Figure:
    value = round(value, 3)
    rounded = None if spread is None else [round(bound, 3) for bound in spread]
    if limit is None:
        return Figure(name, value, "ratio", None, None, of, rounded, note)
    return Figure(name, value, "ratio", f"<= {limit}", value <= limit, of, rounded, note)


def _ratios(row: Row, baseline: Row) -> list[float]:
    """Turn by turn, so that a slow moment of the machine divides itself out."""
    return [mine / theirs for mine, theirs in zip(row.step_ms, baseline.step_ms, strict=True)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="width 16 alone, which no limit is for")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"timed steps of each (default {REPEATS})")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
