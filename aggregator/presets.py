"""The published systems as settings: how devices train, and how bytes travel. Whatever is given besides replaces them.

Each is a study too, which compares it with plain averaging and with its rivals: `scripts/reproduce/<name>`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from protocol.method import Method
from protocol.precision import Precision


@dataclass(frozen=True)
class Preset:
    """One system.

    Attributes:
        about: what it is, in a line.
        method: how devices train (`protocol.method`).
        recipe: how they code updates.
        downlink: how the model comes down (`aggregator.downlink`).
        rates: who decides on both, round by round (`aggregator.rates`).
        precisions: what devices run, best first; empty for any.
    """

    about: str
    method: str = "fp32"
    recipe: str = "fp32"
    downlink: str = "fp32"
    rates: str = "fixed"
    precisions: tuple[Precision, ...] = ()

    @property
    def learns_steps(self) -> bool:
        """Whether its precisions are trained at; else models are quantized afterwards."""
        return Method.parse(self.method).learns_steps

    @property
    def ways(self) -> dict[str, str]:
        """How devices train and bytes travel, as a job and a simulation call it."""
        return {"method": self.method, "recipe": self.recipe, "downlink": self.downlink, "rates": self.rates}

    @property
    def job(self) -> dict[str, Any]:
        """Its values among those of a job, as a configuration file would spell them."""
        named = {"precisions": list(map(str, self.precisions))} if self.precisions else {}
        return self.ways | named | ({} if self.learns_steps else {"calibrate_last": True})


_MANY: Final = tuple(Precision(bits, 8) for bits in (8, 6, 4, 3, 2, 1))

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "fbq": Preset("one-bit weights, one bit a weight on the way up", "oqfl", "sign", precisions=(Precision(1, 8),)),
        "qrfl": Preset(
            "one model for every width; asks for an architecture with codes=nested", "best", precisions=_MANY
        ),
        "oqfl": Preset("learned steps, weights and activations of four bits", "oqfl", precisions=(Precision(4, 4),)),
        "fedaq": Preset(
            "bits both ways under a budget of joules on the air, a tenth a round; --rates fedaq:J for another",
            downlink="uniform:8",
            rates="fedaq:0.1",
        ),
        "fedzip": Preset("a fifth of the values in three clusters", recipe="fedzip:z=0.2,k=3"),
        "fedzip-best": Preset(
            "a few values in a thousand as signs, both ways with error feedback; twice the rounds",
            recipe="ef+stc:0.002+rc",
            downlink="delta:topk:0.02",
        ),
    }
)
