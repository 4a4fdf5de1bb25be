"""What the fleet is asked to learn, and how patiently: read once, checked once, never changed while running."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import ceil
from typing import Final

from aggregator import optimizers
from aggregator.allocate.rules import POLICIES
from aggregator.downlink import Downlink
from aggregator.merge import MAX_UPDATES
from aggregator.rates import BY_STEPS, FIXED, policy
from aggregator.robust import MEAN, Merging
from aggregator.strikes import OFF, Strikes
from export.arithmetic import require_supported
from export.errors import ExportError
from protocol import networks
from protocol.architecture import Architecture
from protocol.channel import USUAL_KM
from protocol.codec.recipe import DEFAULT_RECIPE, Recipe
from protocol.method import DEFAULT_METHOD, Method
from protocol.precision import MAX_PROFILES, Precision

DEFAULT_PRECISIONS: Final = (Precision(8, 8), Precision(4, 8), Precision(2, 8), Precision(1, 8))
NORM_LIMIT: Final = 1e4
"""Far above any honest update, and far below what the sums of a merge hold."""
EXPORTABLE: Final = frozenset({"fp32", "qat", "oqfl", "mqat"})
"""Methods whose networks compute as the exported files do; `fbq` and `apqn` are for simulations."""


@dataclass(frozen=True)
class Job:
    """One training job.

    Attributes:
        architecture: spec string of the network.
        rounds: rounds of training, 0 for ever.
        recipe: how devices code their updates.
        method: how devices train (`protocol.method`).
        downlink: how the base model is coded (`aggregator.downlink`).
        precisions: what devices may run, best first.
        epochs: passes over a device's pictures in one round.
        batch: pictures in one step.
        learning_rate: of the first round; round n has learning_rate · learning_rate_decay^(n−1).
        learning_rate_decay: in (0, 1].
        min_devices: how many must be available before a round opens.
        quorum: fraction of the offered devices that is enough at the deadline.
        deadline_s: how long a round collects.
        extension_s: how much longer once, when the quorum is missed; also the pause before a failed round is retried.
        calibrate_first: devices measure activation steps for a precision that nobody has trained yet.
        calibrate_last: one more round after the last, in which devices only measure the merged model: its moments at
            every precision, and activation steps where the method learns none.
        seed: of the first weights and of everything random that devices are told to do.
        norm_limit: largest Euclidean norm of an update's deltas.
        allocate: how precisions are chosen: `program` for all devices together, `each` for one after the other.
        recipes: more ways to code updates, of which every device gets one.
        epoch_choices: more numbers of epochs, likewise.
        rounds_per_day: what training and sending count with in a device's budget; 0 leaves them out.
        fleet_j_per_day: limit on the energy of all devices together, 0 for none.
        fleet_uplink_bytes: limit on the updates of one round together, 0 for none.
        min_per_precision: how many devices should run each precision, so that it is trained.
        rates: who decides on recipe and downlink, round by round (`aggregator.rates`); `fixed` leaves them as they are.
        distance_km: of devices from their station, for energy on the air where nobody measured it (`protocol.channel`).
        per_round: how many updates a round wants (`aggregator.selection`); 0 asks every device that is there.
        deadline_factor: a round collects this many times as long as its devices usually take, `deadline_s` at most;
            0 always collects `deadline_s`.
        optimizer: what is made of the average (`aggregator.optimizers`).
        gate_points: how many points of accuracy on the held-out pictures a round may cost at any precision; one that
            costs more is rolled back. 0 lets every round pass.
        max_staleness: how many versions old an update may be that comes after its round and is merged with the next;
            0 refuses such updates (`aggregator.staleness`).
        buffer: a round ends when so many updates are there, late ones too, and nobody at work is asked; 0 for rounds
            that wait for their devices.
        groups: of devices that work for this job; the main one names none and has all that no other asks for.
        merge: how updates are merged (`aggregator.robust`): `mean`, or a rule that bears devices which lie.
        quarantine: `off`, or k/m: a device that gave cause in k of its last m rounds is asked no more
            (`aggregator.quarantine`).
        quarantine_rest_s: how long, before it is asked again on probation; 0 until an operator releases it.
        vote: whether weights move by the majority's sign instead of the average, for updates of one bit a weight.

    Raises:
        ValueError: a value is out of its bounds; the message names it.
        RemoteProtocolError: the architecture or a recipe does not exist.
    """

    architecture: str
    rounds: int = 0
    recipe: str = DEFAULT_RECIPE
    method: str = DEFAULT_METHOD
    downlink: str = "fp32"
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    epochs: int = 1
    batch: int = 32
    learning_rate: float = 0.1
    learning_rate_decay: float = 1.0
    min_devices: int = 1
    quorum: float = 0.5
    deadline_s: float = 3600.0
    extension_s: float = 600.0
    calibrate_first: bool = True
    calibrate_last: bool = False
    seed: int = 0
    norm_limit: float = NORM_LIMIT
    vote: bool = False
    allocate: str = "program"
    recipes: tuple[str, ...] = ()
    epoch_choices: tuple[int, ...] = ()
    rounds_per_day: float = 0.0
    fleet_j_per_day: float = 0.0
    fleet_uplink_bytes: int = 0
    min_per_precision: int = 0
    rates: str = FIXED
    distance_km: float = USUAL_KM
    per_round: int = 0
    deadline_factor: float = 0.0
    optimizer: str = optimizers.FEDAVG
    gate_points: float = 0.0
    max_staleness: int = 0
    buffer: int = 0
    groups: tuple[str, ...] = ()
    merge: str = MEAN
    quarantine: str = OFF
    quarantine_rest_s: float = 0.0

    def __post_init__(self) -> None:
        nested = self.network.nested
        recipe = Recipe.parse(self.recipe)
        _check("recipe", self.recipe, self.recipe == str(recipe), f"{recipe}, the usual form")
        _check("vote", self.vote, recipe.is_one_bit or not self.vote, f"false with recipe {recipe}, or sign or stosign")
        _check("method", self.method, Method.parse(self.method).base in EXPORTABLE, "fp32, qat, oqfl or mqat, or +kure")
        learns = Method.parse(self.method).learns_steps
        _check("calibrate_last", self.calibrate_last, learns or self.calibrate_last, f"true with method {self.method}")
        downlink = Downlink.parse(self.downlink)
        _check("downlink", self.downlink, self.downlink == str(downlink), f"{downlink}, the usual form")
        distinct = 0 < len(set(self.precisions)) == len(self.precisions)
        names = ", ".join(map(str, self.precisions))
        _check("precisions", names, distinct, "at least one, each once")
        _check("precisions", names, len(self.precisions) <= MAX_PROFILES, f"at most {MAX_PROFILES}")
        for precision in self.precisions:
            _check_exportable(precision, nested=nested)
        _check("rounds", self.rounds, 0 <= self.rounds < 1 << 31, "0 (for ever) or more")
        _check("epochs", self.epochs, 1 <= self.epochs <= 1000, "1 to 1000")
        _check("batch", self.batch, 1 <= self.batch <= 4096, "1 to 4096")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate <= 10, "above 0, at most 10")
        _check("learning_rate_decay", self.learning_rate_decay, 0 < self.learning_rate_decay <= 1, "above 0, at most 1")
        _check("min_devices", self.min_devices, self.min_devices >= 1, "1 or more")
        _check("quorum", self.quorum, 0 < self.quorum <= 1, "above 0, at most 1")
        _check("deadline_s", self.deadline_s, 0 < self.deadline_s <= 1e9, "above 0 seconds, at most 1e9")
        _check("extension_s", self.extension_s, 0 < self.extension_s <= 1e9, "above 0 seconds, at most 1e9")
        _check("seed", self.seed, 0 <= self.seed < 1 << 63, "0 to 2^63 - 1")
        _check("per_round", self.per_round, 0 <= self.per_round <= MAX_UPDATES, f"0 (all) to {MAX_UPDATES}")
        _check("deadline_factor", self.deadline_factor, 0 <= self.deadline_factor <= 1e3, "0 (none) to 1000")
        _check("max_staleness", self.max_staleness, 0 <= self.max_staleness <= 1000, "0 (none is late) to 1000")
        _check("buffer", self.buffer, 0 <= self.buffer <= MAX_UPDATES, f"0 (none) to {MAX_UPDATES}")
        buffered = not self.buffer or bool(self.max_staleness and not self.per_round)
        _check("buffer", self.buffer, buffered, "0 without max_staleness, and with per_round")
        paced = bool(self.buffer) and self.rates != FIXED
        _check("buffer", self.buffer, not paced, "0 with rates, which look at whole rounds")
        plain = not self.max_staleness or Merging.parse(self.merge).is_plain
        _check("max_staleness", self.max_staleness, plain, f"0 with {self.merge}, where a device has one vote")
        same_steps = not (self.max_staleness and (self.vote or any(each.takes_steps for each in self._recipes)))
        _check(
            "max_staleness", self.max_staleness, same_steps, "0 with a vote or stosign, whose steps are a round's own"
        )
        _check("gate_points", self.gate_points, 0 <= self.gate_points <= 100, "0 (none) to 100")
        try:
            optimizers.parse(self.optimizer)
        except ValueError as error:
            _check("optimizer", self.optimizer, good=False, expected=str(error))
        self._check_allocation()
        self._check_merging()
        policy(self.rates, self.recipe, self.downlink)
        lone = self.rates == FIXED or not (self.vote or self.recipes)
        _check("rates", self.rates, lone, "fixed with a vote or several recipes")
        _check("distance_km", self.distance_km, 0 < self.distance_km <= 1e3, "above 0, at most 1000 km")
        _check("norm_limit", self.norm_limit, 0 < self.norm_limit <= 1e30, "above 0, at most 1e30")

    def _check_allocation(self) -> None:
        _check("allocate", self.allocate, self.allocate in POLICIES, f"one of {', '.join(POLICIES)}")
        parsed = [Recipe.parse(each) for each in self.all_recipes]
        _check("recipes", self.recipes, all(map(str.__eq__, map(str, parsed), self.all_recipes)), "the usual form")
        alone = not any(each.takes_steps for each in parsed) and not self.vote
        _check("recipes", self.recipes, alone or not self.recipes, "none with a vote or stosign, whose steps all share")
        epochs = all(1 <= count <= 1000 for count in self.epoch_choices)
        _check("epoch_choices", self.epoch_choices, epochs, "each 1 to 1000")
        for name in ("rounds_per_day", "fleet_j_per_day", "fleet_uplink_bytes"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1e15, "0 (none) to 1e15")
        _check("min_per_precision", self.min_per_precision, self.min_per_precision >= 0, "0 or more")

    def _check_merging(self) -> None:
        for name, parse in (("merge", Merging.parse), ("quarantine", Strikes.parse)):
            try:
                parse(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"job {name} = {getattr(self, name)!r}: {error}") from error
        merging = Merging.parse(self.merge)
        for recipe in self.all_recipes:
            objection = merging.objection(Recipe.parse(recipe))
            _check("merge", self.merge, not objection, f"mean, a clip or Krum: {objection}")
        steps = merging.coordinates is not None and self.rates.partition(":")[0] in BY_STEPS
        _check(
            "merge", self.merge, not steps, f"mean, a clip or Krum with rates {self.rates}, in whose steps most is 0"
        )
        _check("merge", self.merge, merging.is_plain or not self.vote, "mean with a vote")
        _check("quarantine_rest_s", self.quarantine_rest_s, 0 <= self.quarantine_rest_s <= 1e9, "0 to 1e9 seconds")
        enough = self.min_devices >= merging.least
        _check("min_devices", self.min_devices, enough, f"{merging.least} or more with merge {merging}")

    @property
    def _recipes(self) -> list[Recipe]:
        return [Recipe.parse(each) for each in self.all_recipes]

    @property
    def all_recipes(self) -> tuple[str, ...]:
        """The usual recipe, then the others."""
        return tuple(dict.fromkeys([self.recipe, *self.recipes]))

    @property
    def all_epochs(self) -> tuple[int, ...]:
        """The usual number of epochs, then the others."""
        return tuple(dict.fromkeys([self.epochs, *self.epoch_choices]))

    @property
    def chooses_together(self) -> bool:
        """Whether one device's choice leaves less to the others."""
        return bool(self.fleet_j_per_day or self.fleet_uplink_bytes)

    @property
    def network(self) -> Architecture:
        """The table the spec names."""
        return networks.parse(self.architecture)

    @property
    def last_round(self) -> int | None:
        """Number of the last round, the calibration round included; None for ever."""
        return self.rounds + self.calibrate_last if self.rounds else None

    def calibrates(self, number: int) -> bool:
        """Whether in round `number` devices only measure."""
        return bool(self.rounds) and number > self.rounds

    def epochs_for(self, number: int, own: int = 0) -> int:
        """Epochs of round `number`: 0 in the calibration round, else a device's own if the job allows them."""
        return 0 if self.calibrates(number) else own if own in self.all_epochs else self.epochs

    def precisions_for(self, number: int, own: Precision, trained: Collection[str]) -> tuple[Precision, ...]:
        """The precisions whose profiles a device that runs `own` sends in round `number`.

        Args:
            number: of the round.
            own: what the device runs.
            trained: the precisions that the model has a profile for.
        """
        method = Method.parse(self.method)
        if not self.calibrates(number):
            return method.precisions(own, self.precisions)
        if not method.learns_steps:
            return self.precisions
        return tuple(precision for precision in self.precisions if str(precision) in trained) or (own,)

    def calibrates_steps(self, number: int, trained: Collection[str], precisions: Iterable[Precision]) -> bool:
        """Whether in round `number` activation steps are set from pictures: where none were learned."""
        fresh = any(str(precision) not in trained for precision in precisions)
        return fresh and (self.calibrates(number) or self.calibrate_first)

    def recipe_for(self, number: int, own: str = "") -> str:
        """Recipe of round `number`, a device's own if the job allows it; without feedback in the calibration round."""
        recipe = Recipe.parse(own if own in self.all_recipes else self.recipe)
        return str(recipe.without_feedback if self.calibrates(number) else recipe.in_round(number))

    def downlink_for(self, number: int) -> Downlink:
        """Way down of round `number`: whole in the calibration round, which measures the model itself."""
        downlink = Downlink.parse(self.downlink)
        return downlink.whole if self.calibrates(number) else downlink

    def learning_rate_for(self, number: int) -> float:
        """Learning rate of round `number`, the first being 1."""
        return self.learning_rate * float(self.learning_rate_decay ** (number - 1))

    def quorum_of(self, offered: int) -> int:
        """How many accepted updates close a round of `offered` devices at its deadline; less where less is wanted."""
        wanted = min(offered, self.per_round or offered)
        return max(1, ceil(self.quorum * wanted - 1e-9))  # 0.1 · 30 is a little above 3 in floating point


def _check_exportable(precision: Precision, *, nested: bool) -> None:
    try:
        require_supported(precision, nested=nested)
    except ExportError as error:
        raise ValueError(f"job precisions: {error}") from error


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"job {name} = {value!r}: expected {expected}")
