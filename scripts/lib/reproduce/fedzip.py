"""FedZip: sparse, clustered, encoded updates as published, and what beats them at equal accuracy, in real bytes.

Every run trains plain fp32; they differ in how updates travel. Those that send less than a hundredth have twice the
rounds of FedAvg, and also code the way down.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Final

import numpy as np
from evidence import Figure
from simulation.device import Order, learn
from simulation.report import bits_per_parameter
from simulation.setup import Outcome

from aggregator.model import GlobalModel, base_payload
from protocol.architecture import Role
from protocol.codec.payload import decode, encode
from protocol.precision import FP32
from reproduce import plots
from reproduce.accounting import charged
from reproduce.figures import Bound, Examined, Gap, Spec, at_least, at_most, made
from reproduce.results import Cell, Results
from reproduce.run import TIERS, TITLES, Run
from reproduce.study import Study
from reproduce.tables import NONE, Table
from reproduce.targets import FLOAT, POINTS, round_at, target

FAITHFUL: Final = "fedzip"
BEST: Final = "best"
STRETCH: Final = "stretch"
HALF: Final = "half"

RATIO: Final = at_least(1085.0)
RATIO_TO_TARGET: Final = at_least(540.0)
RATIO_STRETCH: Final = at_least(2000.0)
RATIO_F1: Final = at_least(300.0)
GAP: Final = at_least(-POINTS)
GAP_STRETCH: Final = at_least(-2.0)
GAP_F1: Final = at_least(-1.5)
SAVED_UP: Final = at_least(99.0)
SAVED_ALL: Final = at_least(97.0)
OF_FAITHFUL: Final = at_most(0.5)
EQUAL: Final = at_least(0.0)


@dataclass(frozen=True)
class Way:
    """How updates travel.

    Attributes:
        recipe: of updates.
        downlink: of models.
        rounds: times FedAvg's; the learning rate falls as far in all of them as it does in FedAvg's.
        rate: times FedAvg's learning rate, where another suits it better.
    """

    recipe: str
    downlink: str = "fp32"
    rounds: int = 1
    rate: float = 1.0


WAYS: Final = {
    FLOAT: Way("fp32"),
    FAITHFUL: Way("fedzip:z=0.2,k=3"),
    "QSGD": Way("uniform:4"),
    "EF-sign": Way("ef+sign"),
    "EDEN": Way("eden:1"),
    "DGC": Way("dgc+topk:0.001", rounds=2),
    "STC": Way("ef+stc:0.0025", rounds=2),
    HALF: Way("ef+stc:0.01+rc"),
    BEST: Way("ef+stc:0.0023+rc", "delta:topk:0.02", rounds=2),
    STRETCH: Way("ef+stc:0.001+rc", "delta:topk:0.01", rounds=2),
}
ON_F1: Final = {
    FLOAT: WAYS[FLOAT],
    FAITHFUL: WAYS[FAITHFUL],
    BEST: Way("ef+stc:0.004+rc", "delta:topk:0.05", rounds=2, rate=0.5),
}
ON_SMOKE: Final = {name: replace(WAYS[name], rounds=1) for name in (FLOAT, FAITHFUL, BEST)}
BY_TIER: Final = {"z": WAYS, "f1": ON_F1, "smoke": ON_SMOKE}
CODERS: Final = ("", "+huffman", "+rc")


class Fedzip(Study):
    """Runs, limits, tables and plots."""

    name = "fedzip"
    title = "FedZip: bytes of an update"
    tiers = ("z", "f1", "smoke")
    published = (
        "Published as arXiv 2102.01593: up to 1,085× on EMNIST with a CNN of 1.2 M parameters. That is how its code"
        " counts, of words that cannot be told apart (see the table of accountings); here bytes are lengths of payloads"
        " that were decoded."
    )

    def runs(self, tier: str, seed: int) -> Iterator[Run]:
        """Every way of a tier."""
        for label, way in BY_TIER[tier].items():
            usual = replace(TIERS[tier], seed=seed, method="fp32", recipe=way.recipe, downlink=way.downlink)
            rounds = way.rounds * usual.rounds
            rate, decay = way.rate * usual.learning_rate, usual.decay ** (1 / way.rounds)
            judged = 0 if tier == "smoke" else rounds
            yield Run(tier, label, replace(usual, rounds=rounds, learning_rate=rate, decay=decay, judged=judged))

    def examine(self, run: Run, model: GlobalModel) -> dict[str, Any]:
        """The faithful recipe on one more update of a device: what its authors would charge, and real lengths."""
        if run.label != FAITHFUL:
            return {}
        base = base_payload(model, [FP32], "fp32", 0)
        setup = replace(run.setup, recipe="fp32")
        order = Order(setup, setup.rounds, 0, base, fresh=False, processor="cpu", recipe=setup.recipe)
        update = decode(learn(order, {}).payload)
        lengths = {}
        for coder in CODERS:
            header = replace(update.header, recipe=f"{run.setup.recipe}{coder}")
            payload = encode(header, update.tensors, np.random.default_rng(0))
            lengths[coder.removeprefix("+") or "golomb"] = len(payload)
        weights = [spec.name for spec in update.header.specs if spec.role is Role.WEIGHT]
        sent = decode(payload).tensors
        bits = charged(sent[name] for name in weights)
        return {
            "charged": asdict(bits),
            "decodable": lengths,
            "values": sum(update.tensors[name].size for name in update.tensors),
        }

    def specs(self) -> Sequence[Spec]:
        """Ratios, gaps, and what was saved."""
        return [
            *_pair("z", BEST, GAP, RATIO),
            ToTarget("z.best.ratio_to_target", "z", BEST, RATIO_TO_TARGET),
            Saved("z.best.saved_up", "z", BEST, SAVED_UP, down=False),
            Saved("z.best.saved_all", "z", BEST, SAVED_ALL, down=True),
            *_pair("z", STRETCH, GAP_STRETCH, RATIO_STRETCH),
            Ratio("z.half.of_faithful", "z", HALF, OF_FAITHFUL, against=FAITHFUL, inverse=True),
            Gap("z.half.over_faithful", _cell("z", HALF), _cell("z", FAITHFUL), EQUAL, "as many rounds"),
            *_pair("f1", BEST, GAP_F1, RATIO_F1),
            *(
                Gap(f"z.{label}.gap", _cell("z", label), _cell("z", FLOAT))
                for label in WAYS
                if label not in {FLOAT, BEST, STRETCH}
            ),
            *(Ratio(f"z.{label}.ratio", "z", label) for label in WAYS if label not in {FLOAT, BEST, STRETCH}),
            *(_charged(name) for name in ("huffman", "addresses", "differences")),
            *(_decodable(name) for name in ("huffman", "golomb", "rc")),
        ]

    def tables(self, results: Results) -> Iterable[Table]:
        """Every way by tier; the two accountings."""
        for tier, ways in BY_TIER.items():
            yield Table(TITLES[tier], _HEADER, [row for label in ways for row in _row(results, tier, label)], _NOTE)
        yield Table(
            "One update of the faithful recipe, counted twice",
            ["encoding", "as charged", "decodable"],
            list(_accountings(results)),
            "Ratios to 32 bits for each weight as charged, and for each value of the payload.",
        )

    def plots(self, results: Results) -> Iterator[tuple[str, str]]:
        """Accuracy against bits of a parameter, and against the bytes sent so far."""
        for tier in ("z", "f1"):
            points = {label: _place(results, tier, label) for label in BY_TIER[tier]}
            found = {label: place for label, place in points.items() if place is not None}
            if found:
                yield f"pareto-{tier}", plots.scatter(found, "bits per parameter on the way up", "accuracy, %")
            lines = {label: _curve(results, tier, label) for label in BY_TIER[tier]}
            if any(lines.values()):
                yield f"bytes-{tier}", plots.lines(lines, "bytes of one device's updates so far", "accuracy, %")


@dataclass(frozen=True)
class Ratio:
    """How many times the bytes of one run go into those of another, a round."""

    name: str
    tier: str
    label: str
    bound: Bound | None = None
    against: str = FLOAT
    inverse: bool = False

    def figure(self, results: Results) -> Figure | None:
        """Mean over the seeds that both have."""
        pairs = _pairs(results, self.tier, self.label, self.against)
        values = [fmean(theirs.up_bytes) / fmean(ours.up_bytes) for ours, theirs in pairs]
        if not values:
            return None
        values = [1 / value for value in values] if self.inverse else values
        note = f"bytes a round of {self.label} and {self.against}: payloads, headers and side tensors in"
        return made(self.name, fmean(values), "ratio", self.bound, values, note)


@dataclass(frozen=True)
class ToTarget:
    """Bytes until FedAvg is first within `POINTS` points of its own result, over those until a run is."""

    name: str
    tier: str
    label: str
    bound: Bound | None

    def figure(self, results: Results) -> Figure | None:
        """Mean over seeds; 0 for one that never gets there."""
        values = []
        for ours, theirs in _pairs(results, self.tier, self.label):
            needed, usual = (_bytes_until(outcome, target(theirs)) for outcome in (ours, theirs))
            values.append(usual / needed if needed and usual else 0.0)
        note = "uplink bytes to the target"
        return made(self.name, fmean(values), "ratio", self.bound, values, note) if values else None


@dataclass(frozen=True)
class Saved:
    """Share of the bytes of FedAvg, a round, that are not sent; of the way up, or of both."""

    name: str
    tier: str
    label: str
    bound: Bound | None
    down: bool

    def figure(self, results: Results) -> Figure | None:
        """Mean over the seeds that both have."""
        pairs = _pairs(results, self.tier, self.label)
        values = [100 * (1 - self._bytes(ours) / self._bytes(theirs)) for ours, theirs in pairs]
        return made(self.name, fmean(values), "%", self.bound, values, "a round") if values else None

    def _bytes(self, outcome: Outcome) -> float:
        return fmean(outcome.up_bytes) + (fmean(outcome.down_bytes) if self.down else 0.0)


_HEADER: Final = (
    "way",
    "up",
    "down",
    "rounds",
    "accuracy %",
    "gap",
    "bpp up",
    "ratio",
    "bpp down",
    "rounds to −1",
    "seeds",
)
_NOTE: Final = "Gap to FedAvg at fp32; ratio of the bytes up, a round; −1: first within a point of FedAvg's result."


def _row(results: Results, tier: str, label: str) -> Iterator[list[str]]:
    outcomes = results.outcomes(tier, label)
    if not outcomes:
        return
    values, against = results.accuracies(_cell(tier, label)), results.accuracies(_cell(tier, FLOAT))
    both = sorted(values.keys() & against.keys())
    some = next(iter(outcomes.values()))
    up, down = (fmean(_bpp(outcome, way) for outcome in outcomes.values()) for way in ("up", "down"))
    reached = [round_at(ours, target(theirs)) for ours, theirs in _pairs(results, tier, label)]
    yield [
        label,
        some.setup.recipe,
        some.setup.downlink,
        str(some.setup.rounds),
        f"{fmean(values.values()):.2f}",
        f"{fmean(values[seed] - against[seed] for seed in both):+.2f}" if both else NONE,
        f"{up:.4f}",
        f"{32 / up:,.0f}",
        f"{down:.3f}",
        ", ".join(NONE if number is None else str(number) for number in reached) or NONE,
        str(len(values)),
    ]


def _accountings(results: Results) -> Iterator[list[str]]:
    for _, examined in sorted(results.examined("z", FAITHFUL).items()):
        for charge, coder in (("huffman", "huffman"), ("addresses", ""), ("differences", "golomb"), ("", "rc")):
            real = f"{_decodable_ratio(coder, examined):,.1f}" if coder else NONE
            yield [charge or coder, f"{_charged_ratio(charge, examined):,.1f}" if charge else NONE, real]
        return


def _charged(name: str) -> Spec:
    note = "as the authors' code counts, which cannot be decoded"
    return Examined(
        f"z.fedzip.charged.{name}", "z", FAITHFUL, lambda found: _charged_ratio(name, found), "ratio", min, None, note
    )


def _decodable(name: str) -> Spec:
    note = "length of the payload"
    return Examined(
        f"z.fedzip.decodable.{name}",
        "z",
        FAITHFUL,
        lambda found: _decodable_ratio(name, found),
        "ratio",
        min,
        None,
        note,
    )


def _charged_ratio(name: str, examined: Any) -> float:
    return float(examined["charged"]["fp32"] / max(1, examined["charged"][name]))


def _decodable_ratio(name: str, examined: Any) -> float:
    return float(4 * examined["values"] / examined["decodable"][name])


def _pair(tier: str, label: str, gap: Bound, ratio: Bound) -> Iterator[Spec]:
    yield Gap(f"{tier}.{label}.gap", _cell(tier, label), _cell(tier, FLOAT), gap, "twice FedAvg's rounds")
    yield Ratio(f"{tier}.{label}.ratio", tier, label, ratio)


def _cell(tier: str, label: str) -> Cell:
    return Cell(tier, label, FLOAT)


def _pairs(results: Results, tier: str, label: str, against: str = FLOAT) -> list[tuple[Outcome, Outcome]]:
    """Outcomes of two runs seed by seed, of the seeds that both have."""
    ours, theirs = results.outcomes(tier, label), results.outcomes(tier, against)
    return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def _bpp(outcome: Outcome, way: str) -> float:
    return bits_per_parameter(outcome.setup, outcome.up_bytes if way == "up" else outcome.down_bytes)


def _bytes_until(outcome: Outcome, accuracy: float) -> int:
    number = round_at(outcome, accuracy)
    return 0 if number is None else sum(outcome.up_bytes[:number])


def _place(results: Results, tier: str, label: str) -> tuple[float, list[float]] | None:
    """Bits of a parameter, and the accuracy of every seed."""
    outcomes, values = results.outcomes(tier, label), results.accuracies(_cell(tier, label))
    return (fmean(_bpp(outcome, "up") for outcome in outcomes.values()), list(values.values())) if values else None


def _curve(results: Results, tier: str, label: str) -> list[tuple[float, float]]:
    """Bytes of a device and accuracy in percent, round by round, of the first seed."""
    for _, outcome in sorted(results.outcomes(tier, label).items()):
        sent = np.cumsum(outcome.up_bytes)[-outcome.setup.judged_rounds :] / outcome.setup.sampled
        return [(float(x), 100 * y) for x, y in zip(sent, outcome.accuracy[FLOAT], strict=True)]
    return []
