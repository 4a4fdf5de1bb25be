"""Federated Binary Quantization: accuracy against the bits of a weight, and updates of one bit.

Ours trains at each width with learned steps per channel (`oqfl`); the scheme as it was published, one affine grid per
tensor, is the method `fbq` and runs with `--faithful`. Weights only: activations stay float, as they did there.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from aggregator.model import GlobalModel
from export.passes import to_onnx
from export.writer import serialize
from protocol.codec.payload import Content, Header, encode
from protocol.initial import initial_tensors
from protocol.networks import resnet18
from protocol.precision import FP32, Precision
from reproduce import plots
from reproduce.figures import Examined, Gap, LargestFall, LinkBits, Range, Spec, at_least, at_most, each
from reproduce.latents import level_counts, most_levels
from reproduce.results import Cell, Results
from reproduce.run import CNN4, TITLES, Run, tier_setup
from reproduce.study import Fact, Study
from reproduce.tables import Table, listing

WIDTHS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 16)
FAITHFUL_WIDTHS: Final = (1, 2, 3, 4, 8)
LIMITS_F1: Final = {8: -0.3, 4: -0.3, 3: -0.5, 2: -1.0, 1: -1.5}
MORE_ON_F2: Final = 0.5
LARGEST_FALL: Final = at_most(0.5)
SPREAD_AT_3_BITS: Final = at_most(1.5)
LIMIT_SMOKE_W1A1: Final = at_least(-8.0)
LIMIT_FILE: Final = at_most(1.5)
LIMIT_UPLINK: Final = at_most(1.10)

PUBLISHED: Final = {
    1: "31.6",
    3: "54.1",
    4: "77.6",
    5: "82.2",
    6: "81.5",
    7: "81.4",
    8: "82.1",
    16: "81.5–82.7",
    32: "84.4",
}
"""Accuracy on CIFAR-10 by bits, for 9 to 16 a range, for 32 its unquantized federation."""

SMOKE_RESNET: Final = "resnet18:width=0.125,stem=3x3,input=1x32x32,classes=10"
SMOKE_BINARY: Final = "binary18:width=0.125,input=1x32x32,classes=10"
FLOAT: Final = "fp32"
UPLINKS: Final = ("sign", "ef+sign")
DELTA_DEVIATION: Final = 1e-3
"""Of the random update whose payload is measured; absolute values, since variances are among them."""


class Fbq(Study):
    """Runs, limits, tables and plots."""

    name = "fbq"
    title = "Federated Binary Quantization: accuracy against bits"
    published = (
        "Published as a repository (2023), ResNet18 on CIFAR-10, 10 devices, 3 a round, 30 rounds: 31.6 % labelled"
        " binary, 54.1 % at 3 bits (27.5 to 70.7 over 4 runs), 77.6 % at 4, 82.2, 81.5, 81.4 and 82.1 % at 5, 6, 7"
        " and 8, 81.5 to 82.7 % at 9 to 16, 84.4 % unquantized."
        " Other pictures than ours: compare the shape of the curve."
    )

    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """The runs of a tier."""
        match tier:
            case "f1":
                yield _run(tier, seed, FLOAT, CNN4, "fp32", FLOAT)
                for bits in WIDTHS:
                    yield _run(tier, seed, _width(bits), CNN4, "oqfl", _width(bits))
                for bits in FAITHFUL_WIDTHS:
                    yield _run(tier, seed, _published(bits), CNN4, "fbq", _width(bits), faithful=True)
            case "f2":
                yield _run(tier, seed, FLOAT, CNN4, "fp32", FLOAT)
                yield _run(tier, seed, _width(1), CNN4, "oqfl", _width(1))
                for recipe in UPLINKS:
                    yield _run(tier, seed, _up(recipe), CNN4, "fp32", FLOAT, recipe=recipe)
            case _:
                yield _run(tier, seed, FLOAT, SMOKE_RESNET, "fp32", FLOAT)
                yield _run(tier, seed, _width(1), SMOKE_RESNET, "oqfl", _width(1))
                yield _run(tier, seed, "W1A1", SMOKE_BINARY, "oqfl", "W1A1")

    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:
        """Levels of every convolution; the published scheme has a grid of its own, which nothing exports."""
        precision = run.setup.precisions[0]
        if run.tier != "f1" or run.faithful:
            return {}
        examined: dict[str, Any] = {"levels": level_counts(model, precision)}
        if precision.weight_bits <= 8:
            examined["most_levels"] = most_levels(model, precision)
        return examined

    def specs(self) -> Sequence[Spec]:
        """Accuracy, levels, file and uplink."""
        return [
            *self._widths(),
            LargestFall(
                "f1.largest_fall",
                [_cell("f1", _width(bits)) for bits in WIDTHS] + [_cell("f1", FLOAT)],
                LARGEST_FALL,
                "of the curve of means, between any width and any wider one",
            ),
            Range("f1.W3A32.spread", _cell("f1", _width(3)), SPREAD_AT_3_BITS, "over seeds; published: 43"),
            *(_levels(bits) for bits in WIDTHS if bits <= 8),
            Fact("W1A8.resnet18.file", _packed_mb, "MB", LIMIT_FILE, "ResNet18, 3x3 stem, full width; fp32 is 44.8 MB"),
            Fact("sign.resnet18.uplink", _uplink_bits, "bits per parameter", LIMIT_UPLINK, "length of a whole payload"),
            *self._f2(),
            Gap(
                "smoke.W1A32.gap", _cell("smoke", _width(1)), _cell("smoke", FLOAT), note="smoke run in place of tier R"
            ),
            Gap(
                "smoke.W1A1.gap",
                _cell("smoke", "W1A1"),
                _cell("smoke", FLOAT),
                LIMIT_SMOKE_W1A1,
                "smoke run in place of tier R; binary18 against fp32 on ResNet18",
            ),
        ]

    def tables(self, results: Results) -> Iterable[Table]:
        """One for each tier."""
        widths = [_cell("f1", _width(bits)) for bits in WIDTHS]
        faithful = [Cell("f1", _published(bits), _width(bits)) for bits in FAITHFUL_WIDTHS]
        by_bits = [*zip(WIDTHS, widths, strict=True), *zip(FAITHFUL_WIDTHS, faithful, strict=True)]
        by_bits.append((32, _cell("f1", FLOAT)))
        published = {cell: PUBLISHED[bits] for bits, cell in by_bits if bits in PUBLISHED}
        cells = [*widths, _cell("f1", FLOAT), *faithful]
        yield listing(TITLES["f1"], results, cells, _baseline, published, "published: CIFAR-10, ResNet18, accuracy %")
        f2 = [_cell("f2", FLOAT), _cell("f2", _width(1)), *(Cell("f2", _up(recipe), FLOAT) for recipe in UPLINKS)]
        yield listing(TITLES["f2"], results, f2, _baseline)
        smoke = [_cell("smoke", FLOAT), _cell("smoke", _width(1)), _cell("smoke", "W1A1")]
        yield listing(TITLES["smoke"], results, smoke, _baseline)

    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """Accuracy against bits; what the weights look like at every width."""
        ticks = [*map(str, WIDTHS), "32"]
        ours = {str(bits): _values(results, _cell("f1", _width(bits))) for bits in WIDTHS}
        ours["32"] = _values(results, _cell("f1", FLOAT))
        theirs = {str(bits): _values(results, Cell("f1", _published(bits), _width(bits))) for bits in FAITHFUL_WIDTHS}
        series = [plots.Series("learned steps", ours)]
        series += [plots.Series("scheme as published", theirs, dashed=True)] if any(theirs.values()) else []
        if any(ours.values()):
            yield "accuracy", plots.curves(series, ticks, "bits of a weight", "accuracy, %")
        grid = _grid(results)
        if grid:
            yield "weights", plots.histograms(grid, "level, in units of the largest")

    def _widths(self) -> Iterator[Spec]:
        limits = dict(each(LIMITS_F1))
        for bits in WIDTHS:
            yield Gap(f"f1.W{bits}A32.gap", _cell("f1", _width(bits)), _cell("f1", FLOAT), limits.get(bits))
        for bits in FAITHFUL_WIDTHS:
            cell = Cell("f1", _published(bits), _width(bits))
            yield Gap(f"f1.fbq.W{bits}A32.gap", cell, _cell("f1", FLOAT), note="scheme as published")

    def _f2(self) -> Iterator[Spec]:
        ((_, bound),) = each({1: LIMITS_F1[1]}, MORE_ON_F2)
        yield Gap("f2.W1A32.gap", _cell("f2", _width(1)), _cell("f2", FLOAT), bound)
        for recipe in UPLINKS:
            limit = at_least(0.0) if recipe == "sign" else None
            yield Gap(
                f"f2.{recipe}.gap", Cell("f2", _up(recipe), FLOAT), _cell("f2", FLOAT), limit, "uplink of one bit"
            )
            yield LinkBits(
                f"f2.{recipe}.uplink", "f2", _up(recipe), "a small network: side tensors weigh more than on R"
            )


def _run(
    tier: str,
    seed: int,
    label: str,
    network: str,
    method: str,
    precision: str,
    *,
    recipe: str = "fp32",
    faithful: bool = False,
) -> Run:
    changes = {"method": method, "precision": precision, "recipe": recipe, "evaluate": (precision,)}
    return Run(tier, label, tier_setup(tier, seed, network, **changes), faithful)


def _width(bits: int) -> str:
    return f"W{bits}A32"


def _published(bits: int) -> str:
    return f"fbq W{bits}A32"


def _up(recipe: str) -> str:
    return f"fp32 {recipe}"


def _cell(tier: str, label: str) -> Cell:
    """Of a run that is named after what it is judged at."""
    return Cell(tier, label, label)


def _baseline(cell: Cell) -> Cell:
    return _cell(cell.tier, FLOAT)


def _values(results: Results, cell: Cell) -> list[float]:
    return list(results.accuracies(cell).values())


def _levels(bits: int) -> Examined:
    note = "distinct codes in one channel of any hidden convolution"
    bound = at_most(2**bits)
    return Examined(f"f1.W{bits}A32.levels", "f1", _width(bits), _most_levels, "levels", max, bound, note)


def _most_levels(examined: Any) -> float | None:
    return examined.get("most_levels")


def _grid(results: Results) -> dict[str, dict[str, dict[float, int]]]:
    """Counts by layer, width and level, of the first seed there is."""
    grid: dict[str, dict[str, dict[float, int]]] = {}
    for label in [*map(_width, WIDTHS), FLOAT]:
        for levels in list(results.examined("f1", label, "levels").values())[:1]:
            for layer, counts in levels.items():
                column = {float(level): int(count) for level, count in counts.items()}
                grid.setdefault(layer, {})[label.removesuffix("A32")] = column
    return grid


def _packed_mb() -> float:
    network, precision = resnet18(), Precision(1, 8)
    return len(serialize(to_onnx(network, precision, initial_tensors(network, precision, 0)))) / 1e6


def _uplink_bits() -> float:
    network, rng = resnet18(), np.random.default_rng(0)
    delta = {
        spec.name: np.abs(rng.normal(0, DELTA_DEVIATION, spec.shape)).astype(np.float32)
        for spec in network.tensors(FP32)
    }
    header = Header(network.spec, "sign", str(FP32), Content.DELTA, pictures=0)
    return 8 * len(encode(header, delta, rng)) / network.parameters
