"""What a ResNet18 that was trained elsewhere keeps when it is adopted and quantized without training.

    scripts/bench/adopt                                          full width, some ten minutes
    scripts/bench/adopt --quick                                  an eighth of the width, few pictures
    scripts/bench/adopt --json docs/results/bench/adopt.json

The network is torchvision's ResNet18 with its 7×7 stem, trained at full precision by a plain loop in torch that knows
nothing of bitfleet, on normalised pictures of Fashion-MNIST, else scikit-learn's digits. Its state dictionary goes
through the commands that a user has: `bitfleet-export adopt`, then `model --calibrate` at each precision. Accuracy is
that of the exported file on all test pictures, beside what torch itself gets right on them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from evidence import Figure, write
from foreign_resnet import DEVIATION, MEAN, logits, normalised, trained
from pictures import FASHION_MNIST
from rich.console import Console
from rich.table import Table
from simulation.partition import load_both

from edge.data import Dataset

PRECISIONS: Final = ("fp32", "W8A8", "W6A8", "W4A8")
LIMITS: Final = {"W8A8": -0.5}
"""Points against torch."""
SHAPE: Final = (1, 28, 28)
TRAINED_ON: Final = 20_000
EPOCHS: Final = 4
WIDTH: Final = 64
QUICK_TRAINED_ON: Final = 1_000
QUICK_TESTED_ON: Final = 200
QUICK_WIDTH: Final = 8
EXPORTER: Final = "import sys; from export.cli import main; sys.argv[0] = 'bitfleet-export'; main()"


def main() -> None:
    arguments = _arguments()
    began_s, console = time.perf_counter(), Console(stderr=True)
    train, test = load_both("fashion-mnist" if FASHION_MNIST.is_dir() else "digits", SHAPE)
    count = QUICK_TRAINED_ON if arguments.quick else TRAINED_ON
    train = train.take(np.random.default_rng(0).permutation(len(train))[:count])
    test = test.take(np.arange(min(len(test), QUICK_TESTED_ON))) if arguments.quick else test
    with tempfile.TemporaryDirectory() as folder:
        with console.status("training at full precision, elsewhere as it were"):
            accuracy = _train(train, test, Path(folder), QUICK_WIDTH if arguments.quick else WIDTH)
        with console.status("adopting it"):
            _export(
                "adopt",
                f"{folder}/net.pth",
                "--normalize",
                f"{MEAN}/{DEVIATION}",
                "--input",
                "x".join(map(str, SHAPE)),
                "--out",
                f"{folder}/net.bf",
            )
        made = {}
        for precision in PRECISIONS:
            with console.status(f"exporting {precision} and checking it on {len(test):,} pictures"):
                made[precision] = _exported(Path(folder), precision)
    show(accuracy, made)
    figures = list(_figures(accuracy, made, len(test), limited=not arguments.quick))
    if arguments.json is not None:
        packages = ("numpy", "onnx", "onnxruntime", "torch")
        write(arguments.json, "bench/adopt", figures, wall_s=time.perf_counter() - began_s, packages=packages)
    sys.exit(any(figure.met is False for figure in figures))


def _train(train: Dataset, test: Dataset, folder: Path, width: int) -> float:
    """Leaves the files that a stranger would bring, and says what torch gets right of the test pictures."""
    torch.set_num_threads(1)
    network = trained(train.pictures_NCHW, train.labels_N, epochs=EPOCHS, width=width, kernel=7)
    torch.save(network.state_dict(), folder / "net.pth")
    np.savez(folder / "training.npz", pictures=train.pictures_NCHW)
    np.savez(folder / "test.npz", pictures=test.pictures_NCHW, labels=test.labels_N)
    named = logits(network, normalised(test.pictures_NCHW)).argmax(axis=1)
    return float((named == test.labels_N).mean())


def _exported(folder: Path, precision: str) -> dict[str, Any]:
    options = ["--weights", f"{folder}/net.bf", "--precision", precision, "--pictures", f"{folder}/test.npz"]
    calibrate = [] if precision == "fp32" else ["--calibrate", f"{folder}/training.npz"]
    return _export("model", *options, *calibrate, "--out", f"{folder}/{precision}.onnx")


def _export(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", EXPORTER, *arguments, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def show(accuracy: float, made: dict[str, dict[str, Any]]) -> None:
    table = Table("runs as", "accuracy %", "points against torch", "MB")
    table.add_row("torch, as it was trained", f"{100 * accuracy:.2f}", "", "")
    for precision, facts in made.items():
        gap = 100 * (facts["accuracy"] - accuracy)
        table.add_row(precision, f"{100 * facts['accuracy']:.2f}", f"{gap:+.2f}", f"{facts['bytes'] / 1e6:.2f}")
    Console().print(table)


def _figures(accuracy: float, made: dict[str, dict[str, Any]], pictures: int, *, limited: bool) -> Iterator[Figure]:
    note = "torchvision's ResNet18, 7x7 stem, trained in torch"
    yield Figure("torch.accuracy", round(100 * accuracy, 2), "%", None, None, pictures, None, note)
    for precision, facts in made.items():
        gap, limit = round(100 * (facts["accuracy"] - accuracy), 2), LIMITS.get(precision) if limited else None
        met, said = (None, None) if limit is None else (gap >= limit, f">= {limit}")
        note = f"against torch, adopted and calibrated without training; {facts['bytes'] / 1e6:.2f} MB"
        yield Figure(f"{precision}.gap", gap, "points", said, met, pictures, None, note)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence document here")
    parser.add_argument("--quick", action="store_true", help="an eighth of the width, few pictures, no limits")
    return parser.parse_args()


if __name__ == "__main__":
    main()
