"""The figures that the demo must reach, over several deals of the digits, each a whole federation of processes.

    scripts/bench/demo                             three deals, each also at fp32, about ten minutes
    scripts/bench/demo --quick                     one deal
    scripts/bench/demo --json docs/results/bench/demo.json

Accuracy is that of the exported integer files on held-out pictures; bytes are `len(payload)` as sent, against the
same updates under recipe fp32.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from operator import eq, ge, le
from pathlib import Path
from statistics import mean, median
from typing import Any

from evidence import Figure, write
from rich.console import Console
from rich.table import Table


def main() -> None:
    arguments = _arguments()
    began_s = time.perf_counter()
    seeds = range(1, 2 if arguments.quick else 4)
    results = [_run(seed, arguments.broker) for seed in seeds]
    baseline = [_run(seed, arguments.broker, "--precisions", "fp32") for seed in seeds]
    figures = [*_figures(results), _baseline(baseline)]
    table = Table("figure", "value", "spread", "limit", "met")
    for figure in figures:
        spread = "" if figure.spread is None else f"{figure.spread[0]:g} to {figure.spread[1]:g}"
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", spread, figure.limit, str(figure.met))
    Console().print(table)
    if arguments.json is not None:
        wall_s = time.perf_counter() - began_s
        write(arguments.json, "bench/demo", figures, wall_s=wall_s, packages=("numpy", "torch", "onnxruntime"))
    sys.exit(any(figure.met is False for figure in figures))


def _run(seed: int, broker: str, *options: str) -> dict[str, Any]:
    """One demo; it exits with 0 only if nothing was lost, nothing counted twice and every picture agreed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, str(Path(__file__).with_name("demo.py")), "--data", "digits", "--seed", str(seed)]
        subprocess.run([*command, "--broker", broker, *options, "--json", str(out)], cwd=folder, check=True)
        result: dict[str, Any] = json.loads(out.read_text())
    return result


def _figures(results: list[dict[str, Any]]) -> Iterator[Figure]:
    for precision, floor in (("W8A8", 0.90), ("W4A8", None), ("W1A8", 0.85)):
        values = [_export(result, precision)["accuracy"] for result in results]
        yield _figure(f"{precision}.accuracy", values, mean(values), "fraction", ">=", floor)
    ratios = [result["per_round"]["up_fp32"] / result["per_round"]["up"] for result in results]
    yield _figure("uplink.fp32_over_sent", ratios, min(ratios), "ratio", ">=", 25)
    downs = [result["per_round"]["down_fp32"] * len(result["rounds"]) for result in results]
    received = [mean(device["received_bytes"] for device in result["devices"]) for result in results]
    saved = [down / got for down, got in zip(downs, received, strict=True)]
    yield _figure("downlink.fp32_over_received", saved, median(saved), "ratio", ">=", None)
    agreeing = [mean(export["agree"] / export["pictures"] for export in result["exports"]) for result in results]
    yield _figure("pictures_bit_equal_to_reference", agreeing, min(agreeing), "fraction", "==", 1)
    counted = [float(result["killed"]["counted"]) for result in results if result["killed"]]
    yield _figure("killed_agent_updates_counted", counted, mean(counted), "updates", "==", 1)
    walls = [result["wall_s"] for result in results]
    yield _figure("wall_s", walls, median(walls), "s", "<=", 180)


def _baseline(results: list[dict[str, Any]]) -> Figure:
    """The same fleet, deal, schedule and recipe, with nothing quantized but the updates."""
    return _figure("fp32.accuracy", [_export(result, "fp32")["accuracy"] for result in results])


COMPARE = {">=": ge, "<=": le, "==": eq}


def _figure(
    name: str,
    values: list[float],
    value: float | None = None,
    unit: str = "fraction",
    relation: str = "==",
    limit: float | None = None,
) -> Figure:
    value = mean(values) if value is None else value
    said = None if limit is None else f"{relation} {limit:g}"
    met = None if limit is None else COMPARE[relation](value, limit)
    spread = [round(min(values), 4), round(max(values), 4)]
    note = "six devices, three budgets, Dirichlet 1, ResNet18 at width 0.125, digits at 32x32, one agent killed"
    return Figure(name, round(value, 4), unit, said, met, len(values), spread, note)


def _export(result: dict[str, Any], precision: str) -> dict[str, Any]:
    return next(export for export in result["exports"] if export["precision"] == precision)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="one deal instead of three")
    parser.add_argument("--broker", default="auto", help="as for scripts/demo")
    return parser.parse_args()


if __name__ == "__main__":
    main()
