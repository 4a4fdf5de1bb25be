"""How the bytes of one round travel: as the job says, or as was decided for it and is kept with it (`pacing`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from aggregator.downlink import Downlink
from aggregator.job import Job
from aggregator.store import Device


@dataclass(frozen=True)
class Coding:
    """One round's recipes and way down.

    Attributes:
        job: whose round it is.
        number: of the round.
        recipes: decided for it, by device; empty for the job's.
        downlink: of its base models.
    """

    job: Job
    number: int
    recipes: Mapping[str, str]
    downlink: Downlink

    @classmethod
    def of(cls, job: Job, number: int, decided: Mapping[str, Any]) -> Self:
        """From what is kept with the round; nothing where nothing was decided."""
        if not decided:
            return cls(job, number, {}, job.downlink_for(number))
        return cls(job, number, decided["up"], Downlink.parse(decided["down"]))

    def recipe(self, device: Device) -> str:
        """Of a device's update; of one that came later, that of the others."""
        if not self.recipes:
            return self.job.recipe_for(self.number, device.decision.get("recipe", ""))
        return self.recipes.get(device.id, next(iter(self.recipes.values())))
