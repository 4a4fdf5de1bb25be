"""How a fleet trains, spelled as a string that travels in the offer: `fp32`, `oqfl`, `mqat+kure` and so on.

| name | trains | published as |
|---|---|---|
| `fp32` | at full precision; other widths are calibrated afterwards | FedAvg, arXiv 1602.05629 |
| `qat` | one precision, steps from minimum and maximum | arXiv 1712.05877 |
| `oqfl` | one precision, steps learned with the weights and averaged | APNOMS 2020; LSQ, arXiv 1902.08153 |
| `apqn` | full precision under noise of one precision's size | arXiv 2206.10844 |
| `mqat` | every precision of the fleet in each step, the widest teaching the others | arXiv 2206.10844, 1903.05134 |
| `fbq` | one precision, weights swapped for affine codes per tensor | Federated Binary Quantization |
| `best` | `mqat+kure` | this project |

`+kure` adds the kurtosis term to any of them that keeps a full-precision latent; `kure` alone is `fp32+kure`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from protocol.errors import Unsupported
from protocol.precision import FP32, Precision

METHODS: Final = ("fp32", "qat", "oqfl", "apqn", "mqat", "fbq")
DEFAULT_METHOD: Final = "oqfl"
ALIASES: Final = {"kure": "fp32+kure", "best": "mqat+kure"}
_KURE: Final = "+kure"


@dataclass(frozen=True, slots=True)
class Method:
    """A parsed method: its base, and whether the kurtosis term is added."""

    base: str
    kure: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a method.

        Raises:
            Unsupported: there is none of that name.
        """
        full = ALIASES.get(text, text)
        base = full.removesuffix(_KURE)
        if base not in METHODS:
            known = ", ".join([*METHODS, *ALIASES])
            raise Unsupported(f"method {text[:48]!r}: expected one of {known}, or one of them and {_KURE}")
        return cls(base, kure=base != full)

    def __str__(self) -> str:
        return f"{self.base}{_KURE if self.kure else ''}"

    @property
    def learns_steps(self) -> bool:
        """Whether the precisions it trains need no calibration of steps afterwards."""
        return self.base in {"qat", "oqfl", "mqat"}

    def precisions(self, own: Precision, fleet: Sequence[Precision]) -> tuple[Precision, ...]:
        """The precisions whose profiles a device trains.

        Args:
            own: what the device runs.
            fleet: what the whole fleet runs.
        """
        if self.base == "fp32":
            return (FP32,)
        return tuple(sorted(fleet, key=_width, reverse=True)) if self.base == "mqat" else (own,)


def _width(precision: Precision) -> tuple[int, int]:
    return precision.weight_bits, precision.activation_bits
