"""Optimized quantization in federated learning: 4 bits as good as 32, on three kinds of network.

Steps of weights and activations are learned with the weights and averaged by the fleet (`oqfl`); `qat` takes them from
minimum and maximum instead. All of it is judged as integers, from the exported file.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from aggregator.model import GlobalModel
from protocol.energy import bops
from protocol.networks import resnet18
from protocol.precision import FP32, Precision
from reproduce import plots, post_training
from reproduce.figures import Bound, Examined, Gap, Spec, at_least, each
from reproduce.results import Cell, Results
from reproduce.run import CNN4, TITLES, Run, tier_setup
from reproduce.study import Fact, Study
from reproduce.tables import Table, listing

NETWORKS: Final = {
    "cnn4": CNN4,
    "resnet18": "resnet18:width=0.125,stem=7x7,input=1x28x28,classes=10",
    "mobile": "mobile:width=0.5,input=1x28x28,classes=10",
}
"""Plain, residual, depthwise-separable; widths that give 0.1 to 0.2 M parameters."""
LEARNING_RATES: Final = {"resnet18": 0.1, "mobile": 0.1}
"""Where the tier's, found with cnn4, does not suit fp32 best: of 0.05, 0.1 and 0.2 these did, by 0.4 and 0.3 points."""
PRECISIONS: Final = ("W4A4", "W3A3", "W2A2")
LIMITS: Final = {4: -0.3, 3: -1.0, 2: -3.0}
MORE_ON_F2: Final = 0.5
RIVAL: Final = ("W3A3", "W2A2")
BOPS_RATIO: Final = at_least(30.0)
SAME_CLASS: Final = at_least(99.9)
BIT_EQUAL: Final = Bound("==", 100.0)
_AGREEMENT: Final = {
    "same_class": (SAME_CLASS, "exported integers against fake quantization"),
    "bit_equal": (BIT_EQUAL, "exported file against the integer reference"),
}


class Oqfl(Study):
    """Runs, limits, tables and plots."""

    name = "oqfl"
    title = "Optimized quantization in federated learning: learned steps"
    published = (
        "Published at APNOMS 2020 (Kim, Hong); its abstract says that 4-bit federated learning matches 32-bit"
        " federated learning in test accuracy. Its tables were not found, so all there is to compare with is a gap of 0"
        " at W4A4."
    )

    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """All networks on F1, the plain one on F2; there is none on the smoke tier."""
        if tier == "smoke":
            return
        for network in NETWORKS if tier == "f1" else ("cnn4",):
            yield _run(tier, seed, network, "fp32", "fp32")
            for precision in PRECISIONS:
                yield _run(tier, seed, network, "oqfl", precision)
        if tier == "f1":
            for precision in RIVAL:
                yield _run(tier, seed, "cnn4", "qat", precision)

    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:
        """Whether training, reference and exported file agree."""
        precision = run.setup.precisions[0]
        return {} if precision.is_float else {"agreement": post_training.agreement(run.setup, model, precision)}

    def specs(self) -> Sequence[Spec]:
        """Gaps, the rival, operations and agreement."""
        specs: list[Spec] = []
        for tier, networks, more in (("f1", list(NETWORKS), 0.0), ("f2", ["cnn4"], MORE_ON_F2)):
            for network in networks:
                specs += _gaps(tier, network, more)
        for precision in RIVAL:
            ours, theirs = _cell("f1", "cnn4", precision), Cell("f1", f"cnn4 qat {precision}", precision)
            note = "against steps from minimum and maximum; its limit is of tier R"
            specs.append(Gap(f"f1.cnn4.{precision}.over_qat", ours, theirs, note=note))
        specs.append(Fact("resnet18.W4A4.bops", _bops_ratio, "times fewer", BOPS_RATIO, "whole ResNet18, full width"))
        for network in NETWORKS:
            for precision in PRECISIONS:
                specs += _agreements(network, precision)
        return specs

    def tables(self, results: Results) -> Iterable[Table]:
        """One for each tier."""
        for tier in ("f1", "f2"):
            cells = [_cell(tier, network, precision) for network in NETWORKS for precision in ("fp32", *PRECISIONS)]
            cells += [Cell(tier, f"cnn4 qat {precision}", precision) for precision in RIVAL]
            published = {cell: "gap 0" for cell in cells if cell.judged == "W4A4"}
            yield listing(TITLES[tier], results, cells, _baseline, published)

    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """Accuracy against bits, a line for each network."""
        series = []
        for network in NETWORKS:
            cells = {"32": _cell("f1", network, "fp32")}
            cells |= {name[1]: _cell("f1", network, name) for name in PRECISIONS}
            series.append(plots.Series(network, _points(results, cells)))
        rival = {name[1]: Cell("f1", f"cnn4 qat {name}", name) for name in RIVAL}
        series.append(plots.Series("cnn4, minimum and maximum", _points(results, rival), dashed=True))
        if any(any(line.points.values()) for line in series):
            ticks = [*sorted(name[1] for name in PRECISIONS), "32"]
            yield "accuracy", plots.curves(series, ticks, "bits of weights and activations", "accuracy, %")


def _run(tier: str, seed: int, network: str, method: str, precision: str) -> Run:
    label = f"{network} {method} {precision}" if method == "qat" else f"{network} {precision}"
    changes: dict[str, Any] = {"method": method, "precision": precision, "evaluate": (precision,)}
    if network in LEARNING_RATES:
        changes["learning_rate"] = LEARNING_RATES[network]
    return Run(tier, label, tier_setup(tier, seed, NETWORKS[network], **changes))


def _cell(tier: str, network: str, precision: str) -> Cell:
    return Cell(tier, f"{network} {precision}", precision)


def _baseline(cell: Cell) -> Cell:
    return _cell(cell.tier, cell.label.split()[0], "fp32")


def _gaps(tier: str, network: str, more: float) -> Iterator[Spec]:
    for bits, bound in each(LIMITS, more):
        cell = _cell(tier, network, f"W{bits}A{bits}")
        yield Gap(f"{tier}.{network}.{cell.judged}.gap", cell, _baseline(cell), bound)


def _agreements(network: str, precision: str) -> Iterator[Spec]:
    for key, (bound, note) in _AGREEMENT.items():
        name, label = f"f1.{network}.{precision}.{key}", f"{network} {precision}"
        yield Examined(name, "f1", label, partial(_agreement, key), "% of test pictures", min, bound, note)


def _agreement(key: str, examined: Any) -> float | None:
    shares = examined.get("agreement")
    return 100.0 * shares[key] if shares else None


def _bops_ratio() -> float:
    network = resnet18()
    return bops(network, FP32) / bops(network, Precision(4, 4))


def _points(results: Results, cells: dict[str, Cell]) -> dict[str, list[float]]:
    return {tick: list(results.accuracies(cell).values()) for tick, cell in cells.items()}
