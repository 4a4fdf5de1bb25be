"""What the fleet is asked to learn, and how patiently: read once, checked once, never changed while running."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from export.arithmetic import require_supported
from export.errors import ExportError
from protocol import architecture
from protocol.architecture import Architecture
from protocol.codec.recipe import DEFAULT_RECIPE, Recipe
from protocol.precision import Precision

DEFAULT_PRECISIONS: Final = (Precision(8, 8), Precision(4, 8), Precision(2, 8), Precision(1, 8))
DOWNLINKS: Final = ("fp32", "uniform:8")
"""Recipes for the model on its way down; anything coarser would be trained upon as if it were the model."""


@dataclass(frozen=True)
class Job:
    """One training job.

    Attributes:
        architecture: spec string of the network.
        rounds: rounds of training, 0 for ever.
        recipe: how devices code their updates.
        downlink: how the base model is coded, one of `DOWNLINKS`.
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
        calibrate_last: one more round after the last, in which devices only measure moments of the merged model.
        seed: of the first weights and of everything random that devices are told to do.
        norm_limit: largest Euclidean norm of an update's deltas.

    Raises:
        ValueError: a value is out of its bounds; the message names it.
        RemoteProtocolError: the architecture or a recipe does not exist.
    """

    architecture: str
    rounds: int = 0
    recipe: str = DEFAULT_RECIPE
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
    norm_limit: float = 1e4

    def __post_init__(self) -> None:
        architecture.parse(self.architecture)
        Recipe.parse(self.recipe)
        _check("downlink", self.downlink, self.downlink in DOWNLINKS, f"one of {', '.join(DOWNLINKS)}")
        distinct = 0 < len(set(self.precisions)) == len(self.precisions)
        names = ", ".join(map(str, self.precisions))
        _check("precisions", names, distinct, "at least one, each once")
        for precision in self.precisions:
            _check_exportable(precision)
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
        _check("norm_limit", self.norm_limit, 0 < self.norm_limit <= 1e30, "above 0, at most 1e30")

    @property
    def network(self) -> Architecture:
        """The table the spec names."""
        return architecture.parse(self.architecture)

    @property
    def last_round(self) -> int | None:
        """Number of the last round, the calibration round included; None for ever."""
        return self.rounds + self.calibrate_last if self.rounds else None

    def epochs_for(self, number: int) -> int:
        """Epochs of round `number`: 0, which means moments only, in the calibration round."""
        return 0 if self.rounds and number > self.rounds else self.epochs

    def recipe_for(self, number: int) -> str:
        """Recipe of round `number`: without error feedback in the calibration round.

        There the deltas are zero, and a residual would move the weights that the moments were measured for.
        """
        return str(replace(Recipe.parse(self.recipe), feedback=False)) if self.epochs_for(number) == 0 else self.recipe

    def learning_rate_for(self, number: int) -> float:
        """Learning rate of round `number`, the first being 1."""
        return self.learning_rate * float(self.learning_rate_decay ** (number - 1))

    def quorum_of(self, offered: int) -> int:
        """How many accepted updates close a round of `offered` devices at its deadline."""
        return max(1, ceil(self.quorum * offered - 1e-9))  # 0.1 · 30 is a little above 3 in floating point


def _check_exportable(precision: Precision) -> None:
    try:
        require_supported(precision)
    except ExportError as error:
        raise ValueError(f"job precisions: {error}") from error


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"job {name} = {value!r}: expected {expected}")
