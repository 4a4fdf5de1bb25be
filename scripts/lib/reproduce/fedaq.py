"""FedAQ: bits of both directions together under a budget of joules, against fixed bits, its rivals, and our own.

Every run trains plain fp32 on tier F1; they differ in who decides how many bits a round takes (`aggregator.rates`).
What counts is the energy on the air (`protocol.channel`, modelled) until a run is first within a point of what FedAvg
comes to in fp32. All are compared twice: as they are, and each with a range coder behind it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, Final

import numpy as np
from evidence import Figure
from scipy.stats import kendalltau
from simulation.report import bits_per_parameter
from simulation.setup import Outcome

from aggregator.downlink import Downlink
from aggregator.model import GlobalModel
from aggregator.rates.water_filling import HIGHEST, LOWEST, Term, real_bits, whole_bits
from protocol.codec.recipe import Recipe
from reproduce import plots
from reproduce.figures import Bound, Gap, LinkBits, Spec, at_least, at_most, made
from reproduce.results import Cell, Results
from reproduce.run import TIERS, TITLES, Run
from reproduce.study import Fact, Study
from reproduce.tables import NONE, Table
from reproduce.targets import FLOAT, POINTS, round_at, target

TIER: Final = "f1"
FIXED: Final = "fixed 8/8"
FEDAQ: Final = "FedAQ"
BEST: Final = "best"
CODER: Final = "+rc"

TAU_UP: Final = at_most(-0.6)
TAU_DOWN: Final = at_least(0.6)
BUDGET: Final = at_most(1.0)
BRUTE_FORCE: Final = at_most(1.01)
FEDAQ_OF_FIXED: Final = at_most(round(1 - 0.667, 3))
BEST_OF: Final = {FEDAQ: at_most(0.7), FIXED: at_most(0.22), FLOAT: at_most(0.07)}
BEST_OF_RIVAL: Final = at_most(1.0)
BEST_GAP: Final = at_least(-0.5)
DOWN_BPP: Final = at_most(3.0)

FEDAQ_J: Final = 0.15
"""A round. Less costs more: in trials with seed 0, 0.125 J needed 16 rounds, and 0.1 J 47 of 60, 4.6 J in all."""
BEST_J: Final = 0.045
BEST_CODED_J: Final = 0.03
_FLOAT_BITS: Final = {"fp32": 32.0, "half": 16.0}


@dataclass(frozen=True)
class Way:
    """Who decides, and what stays as it is."""

    rates: str = "fixed"
    recipe: str = "fp32"
    downlink: str = "uniform:8"

    def coded(self) -> "Way":
        """The same with a range coder."""
        fixed = self.rates == "fixed"
        return Way(
            self.rates if fixed else f"{self.rates}{CODER}",
            f"{self.recipe}{CODER}" if fixed else self.recipe,
            f"{self.downlink}{CODER}",
        )


PLAIN: Final = {
    FIXED: Way(recipe="uniform:8"),
    "fixed 4/4": Way(recipe="uniform:4", downlink="uniform:4"),
    "FedDQ": Way("feddq:0.01"),
    "AdaQuantFL": Way("adaquantfl:2"),
    "DAdaQuant": Way("dadaquant:1"),
    FEDAQ: Way(f"fedaq:{FEDAQ_J}"),
    BEST: Way(f"best:{BEST_J}"),
}
"""Those that adapt the way up alone come down at 8 bits, which costs less than the 32 that their authors leave."""
CODED: Final = {f"{label}{CODER}": way.coded() for label, way in PLAIN.items()} | {
    f"{BEST}{CODER}": Way(f"best:{BEST_CODED_J}{CODER}", downlink=f"uniform:8{CODER}")
}
WAYS: Final = {FLOAT: Way(downlink="fp32"), **PLAIN, **CODED}
RIVALS: Final = ("fixed 4/4", "FedDQ", "AdaQuantFL", "DAdaQuant")


class FedAq(Study):
    """Runs, limits, tables and plots."""

    name = "fedaq"
    title = "FedAQ: joules to a target"
    tiers = (TIER,)
    published = (
        "Published as arXiv 2406.18156: up to 66.7 % less communication energy than fixed bits. Its channel constants"
        " and tables were not found; those used here stand in protocol/channel.py."
    )

    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """Every way; all rounds are judged, since the energy to a target is asked."""
        for label, way in WAYS.items():
            setup = replace(TIERS[tier], seed=seed, method="fp32", judged=TIERS[tier].rounds)
            yield Run(tier, label, replace(setup, recipe=way.recipe, downlink=way.downlink, rates=way.rates))

    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:  # noqa: ARG002
        """Nothing on models."""
        return {}

    def specs(self) -> Sequence[Spec]:
        """Trends, the budget, the closed form, and energies to the target."""
        return [
            Trend("f1.fedaq.tau_up", FEDAQ, 0, TAU_UP),
            Trend("f1.fedaq.tau_down", FEDAQ, 1, TAU_DOWN),
            *(WithinBudget(f"f1.{_slug(label)}.of_budget", label, BUDGET) for label in (FEDAQ, f"{FEDAQ}{CODER}")),
            Fact("closed_form.real.over_brute_force", _real_over_brute_force, "ratio", BRUTE_FORCE, _CLOSED_NOTE),
            Fact("closed_form.whole.over_brute_force", _whole_over_brute_force, "ratio", BRUTE_FORCE, _WHOLE_NOTE),
            Energy("f1.fedaq.of_fixed", FEDAQ, FIXED, FEDAQ_OF_FIXED),
            *_best(""),
            *_best(CODER),
            Gap("f1.fedaq.gap", _cell(FEDAQ), _cell(FLOAT)),
        ]

    def tables(self, results: Results) -> Iterable[Table]:
        """Every way without and with a coder."""
        for title, labels in ((TITLES[TIER], [FLOAT, *PLAIN]), ("The same with a range coder", [FLOAT, *CODED])):
            yield Table(title, _HEADER, [row for label in labels for row in _row(results, label)], _NOTE)

    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """Accuracy against energy, and bits of both directions over rounds."""
        for name, labels in (("energy", [FLOAT, *PLAIN]), ("energy-rc", [FLOAT, *CODED])):
            found = {label: _curve(results, label) for label in labels}
            if any(found.values()):
                yield name, plots.lines(found, "mJ on the air so far, modelled", "accuracy, %")
        for name, way in (("bits-up", 0), ("bits-down", 1)):
            series = [plots.Series(label, _bits_series(results, label, way)) for label in [*PLAIN, f"{BEST}{CODER}"]]
            series = [line for line in series if line.points]
            if series:
                ticks = [str(number) for number in range(1, TIERS[TIER].rounds + 1)]
                yield name, plots.curves(series, ticks, "round", "bits of a parameter")


@dataclass(frozen=True)
class Energy:
    """Energy of one run to the target, over that of another; seed by seed."""

    name: str
    label: str
    against: str
    bound: Bound | None = None

    def figure(self, results: Results) -> Figure | None:
        """Mean over seeds; infinite where the run never gets there."""
        targets = _targets(results)
        ours, theirs = (results.outcomes(TIER, label) for label in (self.label, self.against))
        seeds = sorted(ours.keys() & theirs.keys() & targets.keys())
        values = []
        for seed in seeds:
            spent, usual = (_mj_to(outcomes[seed], targets[seed]) for outcomes in (ours, theirs))
            if usual is not None:
                values.append(float("inf") if spent is None else spent / usual)
        note = f"energy on the air, modelled, to fp32 − {POINTS:g}: {self.label} over {self.against}"
        return made(self.name, fmean(values), "ratio", self.bound, values, note) if values else None


@dataclass(frozen=True)
class Trend:
    """Kendall's τ of the bits of one direction over the rounds."""

    name: str
    label: str
    way: int
    bound: Bound

    def figure(self, results: Results) -> Figure | None:
        """The worst of the seeds."""
        found = [_decided(outcome, self.way) for outcome in results.outcomes(TIER, self.label).values()]
        values = [float(kendalltau(range(len(bits)), bits).statistic) if len(set(bits)) > 1 else 0.0 for bits in found]
        worst = max if self.bound.sense == "<=" else min
        note = "of the widths that were decided; the worst seed"
        return made(self.name, worst(values), "Kendall's τ", self.bound, values, note) if values else None


@dataclass(frozen=True)
class WithinBudget:
    """Energy of a whole run, of what it was given."""

    name: str
    label: str
    bound: Bound

    def figure(self, results: Results) -> Figure | None:
        """The worst of the seeds."""
        outcomes = results.outcomes(TIER, self.label).values()
        values = [float(_mj(outcome).sum()) / (1e3 * FEDAQ_J * outcome.setup.rounds) for outcome in outcomes]
        return made(self.name, max(values), "of the budget", self.bound, values, "the worst seed") if values else None


def _best(coder: str) -> Iterator[Spec]:
    """Ours against all others, which have the same coder or none."""
    ours, prefix = f"{BEST}{coder}", f"f1.best{coder.replace('+', '.')}"
    for label, bound in BEST_OF.items():
        yield Energy(f"{prefix}.of_{_slug(label)}", ours, label if label == FLOAT else f"{label}{coder}", bound)
    for label in RIVALS:
        yield Energy(f"{prefix}.of_{_slug(label)}", ours, f"{label}{coder}", BEST_OF_RIVAL)
    yield Gap(f"{prefix}.gap", _cell(ours), _cell(FLOAT), BEST_GAP, "delta downlink")
    yield LinkBits(f"{prefix}.down", TIER, ours, down=True, bound=DOWN_BPP)


_HEADER: Final = (
    "who decides",
    "accuracy %",
    "gap",
    "bpp up",
    "bpp down",
    "mJ a round up",
    "mJ a round down",
    f"rounds to −{POINTS:g}",
    f"mJ to −{POINTS:g}",
    "seeds",
)
_NOTE: Final = (
    f"Energy on the air, modelled; −{POINTS:g}: first within {POINTS:g} point of what FedAvg at fp32 comes to. Means"
    " over seeds."
)


def _row(results: Results, label: str) -> Iterator[list[str]]:
    outcomes, targets = results.outcomes(TIER, label), _targets(results)
    if not outcomes:
        return
    reached = [round_at(outcome, targets[seed]) for seed, outcome in outcomes.items() if seed in targets]
    spent = [_mj_to(outcome, targets[seed]) for seed, outcome in outcomes.items() if seed in targets]
    gaps = [
        100 * (outcome.mean(FLOAT) - targets[seed]) - POINTS for seed, outcome in outcomes.items() if seed in targets
    ]
    every = list(outcomes.values())
    yield [
        label,
        f"{100 * fmean(outcome.mean(FLOAT) for outcome in every):.2f}",
        f"{fmean(gaps):+.2f}" if gaps else NONE,
        f"{fmean(bits_per_parameter(outcome.setup, outcome.up_bytes) for outcome in every):.3f}",
        f"{fmean(bits_per_parameter(outcome.setup, outcome.down_bytes) for outcome in every):.3f}",
        f"{fmean(fmean(outcome.up_mj) for outcome in every):.2f}",
        f"{fmean(fmean(outcome.down_mj) for outcome in every):.2f}",
        ", ".join(NONE if number is None else str(number) for number in reached) or NONE,
        NONE if not spent or None in spent else f"{fmean(value for value in spent if value is not None):.1f}",
        str(len(every)),
    ]


def _decided(outcome: Outcome, way: int) -> list[float]:
    """Bits of a width that was decided, round by round."""
    return [_width(rates[way]) for rates in outcome.rates]


def _width(spec: str) -> float:
    recipe = Downlink.parse(spec).recipe if spec.startswith("delta:") else Recipe.parse(spec)
    return recipe.rate or _FLOAT_BITS.get(recipe.quantizer, 0.0)


def _bits_series(results: Results, label: str, way: int) -> dict[str, list[float]]:
    """Real bits of a parameter by round, of all seeds."""
    series: dict[str, list[float]] = {}
    for outcome in results.outcomes(TIER, label).values():
        sizes = outcome.down_bytes if way else outcome.up_bytes
        for number, size in enumerate(sizes, 1):
            series.setdefault(str(number), []).append(bits_per_parameter(outcome.setup, [size]))
    return series


def _curve(results: Results, label: str) -> list[tuple[float, float]]:
    """Energy so far and accuracy in percent, of the first seed."""
    for outcome in list(results.outcomes(TIER, label).values())[:1]:
        percent = [100 * value for value in outcome.accuracy[FLOAT]]
        return list(zip(np.cumsum(_mj(outcome)).tolist()[-len(percent) :], percent, strict=True))
    return []


def _targets(results: Results) -> dict[int, float]:
    """What every seed's runs have to reach."""
    return {seed: target(outcome) for seed, outcome in results.outcomes(TIER, FLOAT).items()}


def _mj_to(outcome: Outcome, accuracy: float) -> float | None:
    number = round_at(outcome, accuracy)
    return None if number is None else float(_mj(outcome)[:number].sum())


def _mj(outcome: Outcome) -> Any:
    """Of every round, both ways."""
    return np.array(outcome.up_mj) + np.array(outcome.down_mj)


def _cell(label: str) -> Cell:
    return Cell(TIER, label, FLOAT)


def _slug(label: str) -> str:
    return label.lower().replace(" ", "").replace("/", "_").replace("+", ".")


# --- the closed form against every combination ---

_CASES: Final = 20
_TERMS: Final = 3
_GRID: Final = 0.25
_CLOSED_NOTE: Final = f"error of the closed form over that of every combination in steps of {_GRID:g} bits; worst case"
_WHOLE_NOTE: Final = "error of whole widths over that of every combination of them; worst case"


def _real_over_brute_force() -> float:
    grid = np.arange(LOWEST, HIGHEST + _GRID, _GRID)
    return max(_over(case, real_bits, grid.tolist(), lambda term, bits: term.weight * 4.0**-bits) for case in _cases())


def _whole_over_brute_force() -> float:
    widths = [float(width) for width in range(LOWEST, HIGHEST + 1)]
    return max(_over(case, whole_bits, widths, Term.noise) for case in _cases())


def _cases() -> Iterator[tuple[list[Term], float]]:
    """Small instances whose reaches and prices differ tenfold."""
    rng = np.random.default_rng(0)
    for _ in range(_CASES):
        reaches, prices = 10 ** rng.uniform(-0.5, 0.5, (2, _TERMS))
        terms = [Term(float(reach**2), float(price)) for reach, price in zip(reaches, prices, strict=True)]
        yield terms, float(prices.sum() * rng.uniform(LOWEST + 0.5, HIGHEST - 0.5))


def _over(
    case: tuple[list[Term], float],
    solve: Callable[[list[Term], float], Sequence[float]],
    widths: Sequence[float],
    noise: Callable[[Term, float], float],
) -> float:
    terms, budget = case

    def error(bits: Sequence[float]) -> float:
        return sum(noise(term, width) for term, width in zip(terms, bits, strict=True))

    def price(bits: Sequence[float]) -> float:
        return sum(term.price * width for term, width in zip(terms, bits, strict=True))

    best = min(error(bits) for bits in product(widths, repeat=len(terms)) if price(bits) <= budget)
    return error(solve(terms, budget)) / best
