"""How a device may take part in a round, and what its update is then worth to the fleet.

The mean of n updates, each with a relative error ω of its own, is as good as that of n/(1 + ω) exact ones (D. Alistarh
et al., "QSGD", NeurIPS 2017, arXiv 1610.02132); and every further epoch on the same pictures adds less,
since devices drift apart (X. Li et al., "On the Convergence of FedAvg on Non-IID Data", ICLR 2020, arXiv 1907.02189).
So an update by recipe and epochs e is worth

    (1 − DRIFT^e) / (1 + ω)

of the best there could be, which is concave in e and in the bits above one. How many points that is, is a stated prior.
"""

from dataclasses import dataclass
from typing import Final

DRIFT: Final = 0.5
"""An epoch is worth half of the one before it: a prior, not measured."""
POINTS: Final = 0.02
"""What the fleet's accuracy owes to a device of average size whose updates are perfect: a prior, not measured."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to take part.

    Attributes:
        recipe: how updates are coded.
        epochs: on the device's pictures, each round.
        payload_bytes: of an update.
        error: its squared error, relative.
    """

    recipe: str
    epochs: int
    payload_bytes: int = 0
    error: float = 0.0

    @property
    def quality(self) -> float:
        """Of its updates, in [0, 1)."""
        return float(1.0 - DRIFT**self.epochs) / (1.0 + self.error)


def learning(way: Way, samples: int, mean_samples: float) -> float:
    """Accuracy that the fleet owes to a device of so many pictures, the mean being `mean_samples`."""
    return POINTS * way.quality * samples / mean_samples if samples and mean_samples else 0.0
