"""What decides a simulated run, and what comes out of it. Equal setups give equal results, bit for bit."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from aggregator.downlink import Downlink
from aggregator.rates import FIXED, policy
from aggregator.robust import MEAN, Merging
from protocol import networks
from protocol.codec.recipe import Recipe
from protocol.method import Method
from protocol.precision import Precision, parse_several
from simulation.attack import Attack


@dataclass(frozen=True)
class Setup:
    """One run.

    Attributes:
        network: spec string.
        precision: what the devices train, `fp32`, `WxAy` or several joined by `+`.
        method: `protocol.method`.
        data: `fashion-mnist`, `digits`, or a path that `edge.data.load` understands.
        pictures: training pictures used, 0 for all.
        partition: `iid`, or `dirichlet:` and its alpha.
        devices: in the fleet.
        sampled: devices that take part in a round.
        rounds: of training.
        epochs: passes over a device's pictures in one round.
        batch: pictures per step.
        learning_rate: of the first round; round n has learning_rate · decay^(n−1).
        decay: of the learning rate, per round.
        augment: whether pictures are shifted by a few pixels, as agents do.
        recipe: how updates are coded.
        downlink: how the base model is coded (`aggregator.downlink`).
        merge: how updates are merged (`aggregator.robust`).
        attack: what a share of the devices do instead of what they are told (`simulation.attack`); empty for nothing.
        rates: who decides on both, round by round (`aggregator.rates`); `fixed` leaves them as they are.
        evaluate: precisions at which the global model is judged.
        last: in how many of the last rounds; their mean is the accuracy of the run.
        judged: in how many of the last rounds in any case, to see it learn; 0 for no more than `last`.
        vote: whether weights move by the majority's sign, for updates of one bit a weight.
        calibration_pictures: how many pictures each device measures moments over before the model is judged.
        seed: of first weights, deal, sampling, order and rounding.
    """

    network: str
    precision: str = "fp32"
    method: str = "oqfl"
    data: str = "fashion-mnist"
    pictures: int = 20_000
    partition: str = "iid"
    devices: int = 10
    sampled: int = 10
    rounds: int = 25
    epochs: int = 1
    batch: int = 32
    learning_rate: float = 0.05
    decay: float = 0.97
    augment: bool = False
    recipe: str = "fp32"
    downlink: str = "fp32"
    evaluate: tuple[str, ...] = ("fp32",)
    last: int = 10
    calibration_pictures: int = 256
    seed: int = 0
    judged: int = 0
    vote: bool = False
    rates: str = FIXED
    merge: str = MEAN
    attack: str = ""

    def __post_init__(self) -> None:
        networks.parse(self.network)
        parse_several(self.precision)
        Method.parse(self.method)
        Recipe.parse(self.recipe)
        Downlink.parse(self.downlink)
        policy(self.rates, self.recipe, self.downlink)
        for name in self.evaluate:
            Precision.parse(name)
        _check("rounds", self.rounds, self.rounds >= 1, "1 or more")
        _check("last", self.last, 1 <= self.last <= self.rounds, f"1 to the number of rounds, {self.rounds}")
        _check(
            "vote", self.vote, Recipe.parse(self.recipe).is_one_bit or not self.vote, "false, or recipe sign or stosign"
        )
        _checked("merge", self.merge, Merging.parse)
        _checked("attack", self.attack, Attack.parse)
        objection = Merging.parse(self.merge).objection(Recipe.parse(self.recipe))
        _check("merge", self.merge, not objection, f"mean, a clip or Krum: {objection}")
        _check("merge", self.merge, self.merge == MEAN or not self.vote, "mean with a vote")
        _check("judged", self.judged, 0 <= self.judged <= self.rounds, f"0 to the number of rounds, {self.rounds}")
        _check("devices", self.devices, self.devices >= 1, "1 or more")
        _check("sampled", self.sampled, 1 <= self.sampled <= self.devices, f"1 to the devices, {self.devices}")
        _check("pictures", self.pictures, self.pictures >= 0, "0 (all) or more")
        each_once = 0 < len(set(self.evaluate)) == len(self.evaluate)
        _check("evaluate", self.evaluate, each_once, "at least one precision, each once")
        _check("calibration_pictures", self.calibration_pictures, self.calibration_pictures >= 2, "2 or more")

    @property
    def digest(self) -> str:
        """Names the run: twelve hex digits of everything above; what came later counts where it is used."""
        later = {"merge": MEAN, "attack": ""}
        fields = {name: value for name, value in asdict(self).items() if value != later.get(name)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def judged_rounds(self) -> int:
        """How many of the last rounds are judged."""
        return max(self.last, self.judged)

    def attack_of(self, device: int) -> Attack:
        """What a device does; nothing, if it is honest."""
        attack = Attack.parse(self.attack)
        return attack if device in attack.attackers(self.seed, self.devices) else Attack()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What the devices train."""
        return parse_several(self.precision)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        setup: what was run.
        accuracy: fraction right on the test pictures, by precision, one for each of the judged rounds.
        arithmetic: by precision, `integer` (the exported ONNX file) or `float` (the trainer's network).
        loss: mean training loss of every round.
        up_bytes: bytes of all updates of every round, Σ len(payload).
        down_bytes: bytes of all base models of every round.
        up_mj: modelled energy of all updates of every round on the air (`simulation.rates`); empty in older files.
        down_mj: of all base models, likewise.
        rates: recipe of the first device's update and way down of every round, likewise.
        calibration_bytes: bytes of one calibration round.
        wall_s: elapsed time, interruptions not counted.
        machine: as `evidence` describes it, with the commit.
    """

    setup: Setup
    accuracy: Mapping[str, Sequence[float]]
    arithmetic: Mapping[str, str]
    loss: Sequence[float]
    up_bytes: Sequence[int]
    down_bytes: Sequence[int]
    calibration_bytes: int
    wall_s: float
    machine: Mapping[str, Any]
    up_mj: Sequence[float] = field(default_factory=list)
    down_mj: Sequence[float] = field(default_factory=list)
    rates: Sequence[Sequence[str]] = field(default_factory=list)

    def mean(self, precision: str) -> float:
        """Mean accuracy over the last rounds."""
        values = self.accuracy[precision][-self.setup.last :]
        return sum(values) / len(values)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        fields = dict(document)
        setup = dict(fields.pop("setup"))
        setup["evaluate"] = tuple(setup["evaluate"])
        return cls(Setup(**setup), **fields)


def _checked(name: str, value: str, parse: Callable[[str], object]) -> None:
    try:
        parse(value)
    except ValueError as error:
        raise ValueError(f"setup {name} = {value!r}: {error}") from error


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"setup {name} = {value!r}: expected {expected}")
