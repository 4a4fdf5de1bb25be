"""A look at a meter as a person wants it: what it is, and what it says now."""

import time
from dataclasses import dataclass
from typing import Any, Final

from edge.meters.base import Absent, Accuracy, Description, Meter, MeterError, Reading
from edge.meters.choose import AUTO, HERE, NONE, Find, Host, boards, parse_meter, without_login

LOOK_S: Final = 1.0
"""Long enough for several samples of a board's own meter and two of a plug."""


@dataclass(frozen=True, slots=True)
class Look:
    """One meter.

    Attributes:
        spec: how to configure it.
        description: what it is, None where it could not be opened.
        watts: the mean over `LOOK_S`, None for a modelled meter or where it failed.
        problem: why it says nothing, empty for none.
        absent: there is no such thing here.
    """

    spec: str
    description: Description | None
    watts: float | None
    problem: str = ""
    absent: bool = False

    def as_json(self) -> dict[str, Any]:
        """For a script: class, error, rate and what it includes as `Description` has them."""
        what = self.description
        described = (
            {}
            if what is None
            else {
                "name": what.name,
                "accuracy": what.accuracy,
                "error_percent": what.error_percent,
                "rate_hz": what.rate_hz,
                "includes": what.includes,
                "source": what.source,
            }
        )
        return {"meter": self.spec, **described, "watts": self.watts, "problem": self.problem}


def look_at(spec: str, find: Find) -> Look:
    """Open a meter, and say what it says."""
    description: Description | None = None
    try:
        with find() as meter:
            description = meter.description
            return Look(spec, description, watts_now(meter))
    except MeterError as error:
        return Look(spec, description, None, str(error), absent=isinstance(error, Absent))


def watts_now(meter: Meter) -> float | None:
    """The mean power over a second, None for one that only models.

    Raises:
        MeterError: it failed in that time.
    """
    if meter.description.accuracy is Accuracy.MODEL:
        return None
    before, began_s = _dated(meter)
    time.sleep(LOOK_S)
    after, ended_s = _dated(meter)
    if after.holes != before.holes:
        raise MeterError(f"meter {meter.description.name}: was interrupted within {LOOK_S:g} s")
    return (after.total_mj - before.total_mj) / (ended_s - began_s) / 1000.0


def _dated(meter: Meter) -> tuple[Reading, float]:
    """A reading, and the middle of the time that it took."""
    asked_s = time.monotonic()
    reading = meter.read()
    return reading, (asked_s + time.monotonic()) / 2


def look_around(spec: str, host: Host = HERE) -> list[Look]:
    """The configured meter, and every other that this board has of itself.

    Raises:
        ValueError: `spec` is no setting.
    """
    own = [look_at(name, find) for name, find in boards(host).items() if name != spec]
    named = [] if spec in {AUTO, NONE} else [look_at(without_login(spec), find) for find in parse_meter(spec, host)]
    return named + [look for look in own if not look.absent]
