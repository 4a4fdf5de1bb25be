"""How a job says how its updates are merged.

mean                     weighed by pictures, as devices claim them (`aggregator.merge`)
clip:NORM, clip:median   the mean of updates that are scaled down to a norm, or to the round's median norm
median, trimmed:β, krum:f, multi-krum:f         (`rules`); f is a number of devices, or below 1 a share of the round
clip:…+RULE              one of those, of clipped updates
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from aggregator.robust.rules import Coordinates, Krum, Median, Selection, TrimmedMean
from protocol.codec.recipe import Recipe

MEAN: Final = "mean"
OF_THE_ROUND: Final = "median"
EXPECTED: Final = (
    "mean, clip:NORM or clip:median, median, trimmed:SHARE, krum:F or multi-krum:F, or clip:… + one of the last four"
)
MOST_ATTACKERS: Final = 510
"""2f + 3 updates have to fit in a round."""
_NUMBER: Final = re.compile(r"\d{1,6}(\.\d{1,6})?")
_AMOUNTS: Final[dict[str, Callable[[float], bool]]] = {
    "median": lambda amount: not amount,
    "trimmed": lambda amount: 0 < amount < 0.5,
    "krum": lambda amount: 0 < amount < 0.5 or (amount.is_integer() and 1 <= amount <= MOST_ATTACKERS),
}
_AMOUNTS["multi-krum"] = _AMOUNTS["krum"]


@dataclass(frozen=True, slots=True)
class Merging:
    """A way of merging.

    Attributes:
        clip: norm that updates are scaled down to, 0 for the round's median norm, None to leave them.
        rule: its name, `mean` for none.
        amount: what is trimmed at either end, or how many attackers are borne.
    """

    clip: float | None = None
    rule: str = MEAN
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read its spelling.

        Raises:
            ValueError: there is no such way; the message says which there are.
        """
        first, plus, rest = text.partition("+")
        kind, _, norm = first.partition(":")
        clip = 0.0 if norm == OF_THE_ROUND else _number(norm) or None
        if text == MEAN:
            return cls()
        if kind == "clip" and clip is not None and bool(plus) == bool(rest):
            return cls(clip, *_rule(rest)) if rest else cls(clip)
        if plus or kind == "clip":
            raise ValueError(f"expected {EXPECTED}")
        return cls(None, *_rule(text))

    def __str__(self) -> str:
        clip = "" if self.clip is None else f"clip:{_plain(self.clip) if self.clip else OF_THE_ROUND}"
        rule = "" if self.rule == MEAN else f"{self.rule}:{_plain(self.amount)}" if self.amount else self.rule
        return "+".join(filter(None, (clip, rule))) or MEAN

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean as devices weigh it."""
        return self.rule == MEAN and self.clip is None

    @property
    def coordinates(self) -> Coordinates | None:
        """The rule, where it is one for every coordinate."""
        rules: dict[str, Coordinates] = {"median": Median(), "trimmed": TrimmedMean(self.amount)}
        return rules.get(self.rule)

    @property
    def selection(self) -> Selection | None:
        """The rule, where it selects updates."""
        kinds = {"krum": False, "multi-krum": True}
        return Krum(self.amount, several=kinds[self.rule]) if self.rule in kinds else None

    @property
    def for_profiles(self) -> Coordinates:
        """What settles steps and moments, whoever is believed about the weights: harmless weights prove nothing."""
        return self.coordinates or Median()

    @property
    def least(self) -> int:
        """Updates without which the rule does not hold, where it names a number of attackers; else 1."""
        return 2 * int(self.amount) + 3 if self.selection is not None and self.amount >= 1 else 1

    def objection(self, recipe: Recipe) -> str:
        """Why updates of this recipe cannot be merged so; empty if they can."""
        if self.coordinates is None:
            return ""
        rare = recipe.share < 1 or recipe.quantizer == "step" or (recipe.quantizer == "eden" and recipe.rate < 1)
        return f"most values of {recipe} are zero, and so is what {self.rule} makes of them" if rare else ""


def _rule(text: str) -> tuple[str, float]:
    """Name and amount of a rule."""
    name, colon, number = text.partition(":")
    amount = _number(number)
    if name not in _AMOUNTS or bool(colon) != (name != "median") or not _AMOUNTS[name](amount):
        raise ValueError(
            f"expected {EXPECTED}; SHARE is above 0 and below 0.5, F such a share of the round or 1 to"
            f" {MOST_ATTACKERS} devices"
        )
    return name, amount


def _number(text: str) -> float:
    """0 where it is none."""
    return float(text) if _NUMBER.fullmatch(text) else 0.0


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")
