"""The same law for codecs that pay for what values weigh instead of how far they reach, and that forget nothing.

Three things are cheaper here than in `fedaq`, at equal noise:

- A width over the range spends log2(R/Δ) bits a value, an entropy coder about log2(RMS/Δ) + 2.05, and R/RMS of an
  update is 6 to 24. So values take steps and a range coder (`step:Δ+rc`), or, without one, are rotated until they
  reach as far as normal ones (`eden`).
- The way down carries what changed instead of the weights.
- Both directions have error feedback where devices come back, so noise is late instead of lost.

Minimizing Δ_u²/n + Δ_d² within a budget, whose dearer side grows by p·log2 Δ, gives Δ_u/Δ_d = √(n·p_u/p_d), constant in
time. How coarse both are is found by what the last round cost: where the rest at that rate would spend more than is
left, steps grow; where it would leave much, they shrink.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

from aggregator.rates.base import Rates, Seen, rms_of, step_recipe
from aggregator.rates.fedaq import budget_left_j, rounds_left

RC: Final = "+rc"
FIRST_UP: Final = "eden:1"
"""Before anything is known of updates: a bit a value, of known error, whatever they are."""
FIRST_ERROR: Final = 0.571
"""Of `FIRST_UP`, of the square of the values; `eden` lengthens what it sends by as much."""
FIRST_STEP: Final = 3.0
"""Of the second round, in units of the root mean square of the first updates."""
EDEN_ERRORS: Final = {0.1: 14.7, 0.25: 5.28, 0.5: 2.14, 1.0: 0.571, 2.0: 0.1335, 3.0: 0.036, 4.0: 0.0095}
"""Relative error by rate: A. Vargaftik et al., "EDEN", ICML 2022; below 1 that of 1 bit on a random share."""
MOVED: Final = 0.5
"""Square of how far a round moves the model, of that of an update: devices agree in about so much."""
RETURNING: Final = 0.5
"""Share of the fleet in a round from which on error feedback is worth having."""
_COARSEST, _FINEST = 1.5, 1 / 1.25
"""Factors of a step from one round to the next."""
_SPARE: Final = 0.7
"""Steps shrink where the rest would take less than this much of the budget."""


@dataclass(frozen=True)
class Best:
    """Constant steps, or rotated codes without an entropy coder.

    Attributes:
        round_j: budget in joules for a round, as in `fedaq`.
        coder: `+rc`, or empty.
    """

    round_j: float
    coder: str = RC

    def rates(self, seen: Seen) -> Rates:
        """Decide on a round."""
        return self._steps(seen) if self.coder else self._rotated(seen)

    def _steps(self, seen: Seen) -> Rates:
        if not seen.updates:
            return Rates((FIRST_UP,) * seen.devices, self._down(_first_down(seen)), "steps follow the first updates")
        if seen.last is None or not seen.last.up_step:
            up = FIRST_STEP * rms_of(seen.updates[-1]) / sqrt(1 + FIRST_ERROR)
            reason = f"steps of {FIRST_STEP:g} times the mean size of the first updates"
        else:
            factor = self._factor(seen)
            up = seen.last.up_step * factor
            reason = f"steps {factor:.2f} times those before: {self._left(seen)}"
        recipe = step_recipe(up, self.coder, _feedback(seen))
        return Rates((recipe,) * seen.devices, self._down(up / _ratio(seen)), reason, up)

    def _factor(self, seen: Seen) -> float:
        """How much coarser steps get; 1 where the rest fits the budget well."""
        needed = sum(seen.last_j) * rounds_left(seen) / max(budget_left_j(self.round_j, seen), 1e-12)
        if _SPARE <= needed <= 1:
            return 1.0
        return min(_COARSEST, max(_FINEST, needed if needed > 1 else needed / _SPARE))

    def _left(self, seen: Seen) -> str:
        left_j = budget_left_j(self.round_j, seen)
        return f"{left_j:.3g} J for {rounds_left(seen)} rounds, of which the last took {sum(seen.last_j):.3g}"

    def _down(self, step: float) -> str:
        return f"delta:{step_recipe(step, self.coder)}"

    def _rotated(self, seen: Seen) -> Rates:
        """The pair of rates that errs least within this round's share of what is left."""
        share_j = budget_left_j(self.round_j, seen) / rounds_left(seen)
        pairs = [(up, down) for up in EDEN_ERRORS for down in EDEN_ERRORS]
        able = [pair for pair in pairs if seen.cost_j(*pair) <= share_j] or [(min(EDEN_ERRORS), min(EDEN_ERRORS))]
        up, down = min(able, key=lambda pair: EDEN_ERRORS[pair[0]] / seen.devices + MOVED * EDEN_ERRORS[pair[1]])
        reason = f"{up:g} bits up and {down:g} down: {share_j:.3g} J for this round"
        return Rates((f"{_feedback(seen)}eden:{up:g}",) * seen.devices, f"delta:eden:{down:g}", reason)


def _feedback(seen: Seen) -> str:
    """What is left out is only worth keeping where a device comes back before the model has turned away from it."""
    return "ef+" if seen.devices >= RETURNING * seen.fleet else ""


def _ratio(seen: Seen) -> float:
    """Step up over step down."""
    return sqrt(seen.devices * seen.prices.up_j_per_byte / seen.prices.down_j_per_byte)


def _first_down(seen: Seen) -> float:
    """The first step that a downlink takes comes whole; this one is only for a model that devices hold already."""
    return rms_of(seen.weights[-1]) / 10
