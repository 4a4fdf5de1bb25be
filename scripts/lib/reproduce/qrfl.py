"""Quantization-robust federated learning: one model for all widths, and the rivals that are quantized afterwards.

`mqat` trains six widths at once on nested codes; `best` adds the kurtosis term. `fp32`, `kure`, `apqn` and `qat` train
as they do and are then quantized to every width without training (`post_training`); plain fp32 so quantized is the
rival to beat.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from aggregator.model import GlobalModel
from export.nested import read_nested, write_nested
from export.passes import to_onnx
from export.writer import serialize
from protocol.precision import Precision, join
from reproduce import plots, post_training
from reproduce.figures import Bound, Examined, Gap, Spec, at_least, at_most, each
from reproduce.latents import kurtoses, power_of_two, times, with_steps
from reproduce.results import FINAL, Cell, Results
from reproduce.run import CNN4, NESTED_CNN4, TITLES, Run, tier_setup
from reproduce.study import Study
from reproduce.tables import Table, listing, matrix

WIDTHS: Final = (8, 6, 4, 3, 2, 1)
INTEGER: Final = tuple(Precision(bits, 8) for bits in WIDTHS)
WEIGHTS_ONLY: Final = tuple(Precision(bits, 32) for bits in WIDTHS)
TRAINED: Final = join(INTEGER)
AFTERWARDS: Final = "afterwards "
"""Before a precision: the final model quantized to it without training."""
NAIVE: Final = "not recalibrated "
"""The same with the moments of full precision."""
STEP: Final = "step "
"""Before a change of the step at `SCALED`, moments as they were for the usual step."""
STEP_CALIBRATED: Final = "step, calibrated again, "
"""The same, moments measured again."""

LIMITS: Final = {8: -0.3, 6: -0.3, 4: -0.5, 3: -0.7, 2: -1.2, 1: -2.0}
"""Weights only, on F1; with 8-bit activations `MORE_WITH_A8` more, on F2 `MORE_ON_F2` more."""
MORE_WITH_A8: Final = 0.3
MORE_ON_F2: Final = 0.5
OVER_NAIVE: Final = at_least(10.0)
NOT_WORSE: Final = at_least(0.0)
KURTOSIS: Final = 1.8
KURTOSIS_ERROR: Final = at_most(0.3)
ROBUST: Final = at_most(1.0)
NESTED_SIZE: Final = at_most(1.1)
SAME_CLASS: Final = at_least(99.9)
BIT_EQUAL: Final = Bound("==", 100.0)

USUAL_STEP: Final = "x1"
STEPS: Final = {f"x{factor:g}": times(factor) for factor in (0.8, 0.9, 1.0, 1.1, 1.25)} | {"2^n": power_of_two}
SCALED: Final = Precision(4, 32)

MULTI: Final = ("mqat", "best")
RATES: Final = {"f1": 0.1, "f2": 0.05}
"""Learning rates of `MULTI`: half the tier's, which suits fp32 best, since a step adds the losses of three widths."""
POST: Final = {"fp32": "fp32", "kure": "fp32", "apqn": "W4A32", "qat": "W4A8"}
"""Methods that are quantized afterwards, and what they train at."""


class Qrfl(Study):
    """Runs, limits, tables and plots."""

    name = "qrfl"
    title = "Quantization-robust federated learning: one model, every width"
    published = (
        "Published as arXiv 2206.10844 (TMLR 2023); no figure of its tables was found, so none is quoted. KURE's own"
        " effect, post-training on ImageNet with ResNet18, weights of 4 bits: 62.6 to 68.3 % at the best step, 61.4 to"
        " 66.2 % at a power of two; of 3 bits: 52.4 to 62.6 % and 37.5 to 55.8 % (supplement of arXiv 2002.07686)."
    )

    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """The runs of a tier, on F2 only `best` and what it is compared with; there is none on the smoke tier."""
        if tier == "f1":
            for method, precision in POST.items():
                evaluate = tuple(dict.fromkeys(("fp32", precision)))
                yield _run(tier, seed, CNN4, method, precision, evaluate)
        elif tier == "f2":
            yield _run(tier, seed, CNN4, "fp32", "fp32", ("fp32",))
        if tier != "smoke":
            for method in MULTI if tier == "f1" else ("best",):
                evaluate = ("fp32", *map(str, INTEGER), *map(str, WEIGHTS_ONLY))
                yield _run(tier, seed, NESTED_CNN4, method, TRAINED, evaluate, learning_rate=RATES[tier])

    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:
        """Kurtosis; widths after training and other steps; the nested file and its slices."""
        examined: dict[str, Any] = {"kurtosis": kurtoses(model)}
        if run.label in MULTI:
            examined["nested"] = nested_file(model)
            examined["agreement"] = {str(p): post_training.agreement(run.setup, model, p) for p in INTEGER}
        else:
            examined["accuracy"] = _afterwards(run, model)
        return examined

    def specs(self) -> Sequence[Spec]:
        """Accuracy at every width, rivals, kurtosis, steps and the nested file."""
        specs: list[Spec] = []
        for method in MULTI:
            specs += [*_gaps("f1", method), *_rivals(method), *_files(method)]
        return [*specs, *_gaps("f2", "best", MORE_ON_F2), *_shapes(), *_steps()]

    def tables(self, results: Results) -> Iterable[Table]:
        """A matrix of methods and widths for each kind of activations; F2 as a list."""
        for kind, precisions in (("8-bit activations", INTEGER), ("weights only", WEIGHTS_ONLY)):
            names = {"fp32": "fp32"} | {str(p): str(p) for p in precisions}
            yield _matrix(f"{TITLES['f1']}; {kind}", results, MULTI, names, "mean of the last rounds")
            names = {str(p): f"{AFTERWARDS}{p}" for p in precisions}
            yield _matrix(f"Quantized after training, with calibration; {kind}", results, POST, names)
        names = {str(p): f"{NAIVE}{p}" for p in WEIGHTS_ONLY}
        yield _matrix("Quantized after training, without calibration; weights only", results, POST, names)
        for prefix in (STEP, STEP_CALIBRATED):
            names = {step: f"{prefix}{step}" for step in STEPS}
            yield _matrix(f"{SCALED} after training, {prefix}multiplied", results, POST, names)
        cells = [Cell("f2", "fp32", "fp32"), *(Cell("f2", "best", str(p)) for p in (*INTEGER, *WEIGHTS_ONLY))]
        yield listing(TITLES["f2"], results, cells, lambda _: Cell("f2", "fp32", "fp32"))

    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """Accuracy against bits, kurtosis by layer, accuracy against the scale of the step."""
        ticks = [str(bits) for bits in reversed(WIDTHS)]
        for kind, precisions in (("A8", INTEGER), ("A32", WEIGHTS_ONLY)):
            series = [
                plots.Series(label, _by_width(results, label, precisions, prefix), dashed=bool(prefix))
                for label, prefix in [*((m, "") for m in MULTI), *((m, AFTERWARDS) for m in POST)]
            ]
            if any(any(line.points.values()) for line in series):
                yield f"accuracy-{kind}", plots.curves(series, ticks, f"bits of a weight ({kind})", "accuracy, %")
        shaped = {label: _by_layer(results, label) for label in ("fp32", "kure")}
        layers = list(dict.fromkeys(layer for points in shaped.values() for layer in points))
        if layers:
            series = [plots.Series(label, points) for label, points in shaped.items()]
            yield "kurtosis", plots.bars(series, layers, "kurtosis of the weights", KURTOSIS)
        scaled = {label: {step: _values(results, label, f"{STEP}{step}") for step in STEPS} for label in POST}
        if any(any(points.values()) for points in scaled.values()):
            series = [plots.Series(label, points) for label, points in scaled.items()]
            yield "step", plots.curves(series, list(STEPS), f"step of {SCALED}", "accuracy, %")


def nested_file(model: GlobalModel) -> dict[str, Any]:
    """The size of the nested file, and whether each of its slices is the direct export, byte by byte."""
    data = write_nested(model.network, INTEGER, model.tensors)
    nested = read_nested(data)
    direct = {p: serialize(to_onnx(model.network, p, model.tensors(p))) for p in INTEGER}
    equal = {str(p): serialize(nested.slice(p)) == model_file for p, model_file in direct.items()}
    return {"bytes": len(data), "of_w8a8": len(data) / len(direct[INTEGER[0]]), "equal": equal}


def _afterwards(run: Run, model: GlobalModel) -> dict[str, float]:
    """Accuracy of the final model quantized after training, in all the ways that are compared."""
    accuracy = partial(post_training.accuracy, run.setup)
    found = {}
    for precision in (*INTEGER, *WEIGHTS_ONLY):
        found[f"{AFTERWARDS}{precision}"] = accuracy(post_training.strong(run.setup, model, precision), precision)
    for precision in WEIGHTS_ONLY:
        found[f"{NAIVE}{precision}"] = accuracy(post_training.searched(model, precision), precision)
    usual = post_training.strong(run.setup, model, SCALED)
    for name, change in STEPS.items():
        changed = with_steps(usual, SCALED, change)
        found[f"{STEP}{name}"] = accuracy(changed, SCALED)
        found[f"{STEP_CALIBRATED}{name}"] = accuracy(post_training.calibrated(run.setup, changed, SCALED), SCALED)
    return found


def _matrix(title: str, results: Results, labels: Iterable[str], names: dict[str, str], what: str = "") -> Table:
    note = f"{what or 'the final model'}; in brackets the gap to fp32 FedAvg"
    return matrix(title, results, "f1", list(labels), names, Cell("f1", "fp32", "fp32"), note)


def _run(
    tier: str, seed: int, network: str, method: str, precision: str, evaluate: tuple[str, ...], **changes: float
) -> Run:
    setup = tier_setup(tier, seed, network, method=method, precision=precision, evaluate=evaluate, **changes)
    return Run(tier, method, setup)


def _gaps(tier: str, method: str, more: float = 0.0) -> Iterator[Spec]:
    """To fp32 FedAvg, at every width, with 8-bit and with float activations."""
    for kind, extra in ((8, MORE_WITH_A8), (32, 0.0)):
        for bits, bound in each(LIMITS, more + extra):
            name = str(Precision(bits, kind))
            yield Gap(f"{tier}.{method}.{name}.gap", Cell(tier, method, name), Cell(tier, "fp32", "fp32"), bound)
    yield Gap(f"{tier}.{method}.fp32.gap", Cell(tier, method, "fp32"), Cell(tier, "fp32", "fp32"))


def _rivals(method: str) -> Iterator[Spec]:
    """Against plain FedAvg quantized after training, final model against final model."""
    for precision in (*INTEGER, *WEIGHTS_ONLY):
        ours = Cell("f1", method, f"{FINAL}{precision}")
        rival = Cell("f1", "fp32", f"{AFTERWARDS}{precision}")
        note = "rival: clip-searched and recalibrated; both after the last round"
        yield Gap(f"f1.{method}.{precision}.over_rival", ours, rival, NOT_WORSE, note)
    ours, naive = Cell("f1", method, f"{FINAL}W1A32"), Cell("f1", "fp32", f"{NAIVE}W1A32")
    yield Gap(f"f1.{method}.W1A32.over_naive", ours, naive, OVER_NAIVE, "rival: clip-searched, not recalibrated")


def _files(method: str) -> Iterator[Spec]:
    yield Examined(f"f1.{method}.nested.size", "f1", method, _nested_size, "of the W8A8 file", max, NESTED_SIZE)
    yield Examined(
        f"f1.{method}.nested.equal",
        "f1",
        method,
        _nested_equal,
        "% of widths",
        min,
        BIT_EQUAL,
        "slice is direct export",
    )
    for key, bound in (("same_class", SAME_CLASS), ("bit_equal", BIT_EQUAL)):
        number = partial(_least_agreement, key)
        yield Examined(f"f1.{method}.{key}", "f1", method, number, "% of test pictures", min, bound, "worst width")


def _shapes() -> Iterator[Spec]:
    for label, bound in {"fp32": None, "kure": KURTOSIS_ERROR, "best": None}.items():
        note = f"largest distance of a hidden convolution's kurtosis from {KURTOSIS}"
        yield Examined(f"f1.{label}.kurtosis_error", "f1", label, _kurtosis_error, "kurtosis", max, bound, note)


def _steps() -> Iterator[Spec]:
    note = f"{SCALED}, step times 0.8 to 1.25 or at a power of two: loss at the worst, nothing trained"
    for label, bound in {"fp32": None, "kure": ROBUST}.items():
        for name, prefix in {"step_loss": STEP, "step_loss_calibrated": STEP_CALIBRATED}.items():
            limit = bound if prefix == STEP else None
            number = partial(_step_loss, prefix)
            yield Examined(f"f1.{label}.{name}", "f1", label, number, "points", max, limit, note)


def _nested_size(examined: Any) -> float | None:
    return examined.get("nested", {}).get("of_w8a8")


def _nested_equal(examined: Any) -> float | None:
    equal = examined.get("nested", {}).get("equal")
    return 100.0 * sum(equal.values()) / len(equal) if equal else None


def _least_agreement(key: str, examined: Any) -> float | None:
    found = [100.0 * shares[key] for shares in examined.get("agreement", {}).values()]
    return min(found, default=None)


def _kurtosis_error(examined: Any) -> float | None:
    return max((abs(value - KURTOSIS) for value in examined.get("kurtosis", {}).values()), default=None)


def _step_loss(prefix: str, examined: Any) -> float | None:
    """Points lost at the worst of the other steps."""
    accuracy = examined.get("accuracy", {})
    found = {step: accuracy[f"{prefix}{step}"] for step in STEPS if f"{prefix}{step}" in accuracy}
    return 100.0 * (found[USUAL_STEP] - min(found.values())) if found else None


def _values(results: Results, label: str, judged: str) -> list[float]:
    return list(results.accuracies(Cell("f1", label, judged)).values())


def _by_width(results: Results, label: str, precisions: Sequence[Precision], prefix: str) -> dict[str, list[float]]:
    return {str(p.weight_bits): _values(results, label, f"{prefix}{p}") for p in precisions}


def _by_layer(results: Results, label: str) -> dict[str, list[float]]:
    points: dict[str, list[float]] = {}
    for layers in results.examined("f1", label, "kurtosis").values():
        for layer, value in layers.items():
            points.setdefault(layer, []).append(value)
    return points
