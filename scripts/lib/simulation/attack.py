"""Devices that lie, so that one can see what a way of merging bears.

    sign-flip:0.3, sign-flip:4:0.3      30 % of the devices send −Δ, or −4·Δ (L. Li et al., "RSA: Byzantine-Robust
                                        Stochastic Aggregation Methods", AAAI 2019, arXiv 1811.03761)
    scale:10:0.3                        10·Δ, as who wants to replace the model does (E. Bagdasaryan et al., "How To
                                        Backdoor Federated Learning", AISTATS 2020, arXiv 1807.00459)
    gaussian:0.1:0.3                    noise of that deviation instead of what was learned
    label-flip:0.3                      honest training on pictures of class c that are called class C − 1 − c
    nan:0.1                             an update with a number that is none, which the door must refuse

Moments are lied about likewise; a variance stays one. Who lies follows from the seed alone: the devices of a smaller
share are among those of a larger one, and the same whatever they do.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from edge.data import Dataset
from protocol.architecture import Tensors
from protocol.precision import Float32
from simulation.seeds import generator

USUAL: Final = {"sign-flip": 1.0, "label-flip": 0.0, "nan": 0.0}
"""What is done by how much, where the spelling need not say it."""
TUNED: Final = frozenset({"sign-flip", "scale", "gaussian"})
_BEFORE_HEADER: Final = 5
EXPECTED: Final = (
    "sign-flip[:FACTOR]:SHARE, scale:FACTOR:SHARE, gaussian:DEVIATION:SHARE, label-flip:SHARE or nan:SHARE"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """What some of the devices do.

    Attributes:
        kind: its name, empty for nothing.
        amount: a factor or a deviation.
        share: of the devices.
    """

    kind: str = ""
    amount: float = 0.0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read its spelling; nothing for an empty one.

        Raises:
            ValueError: there is no such attack, or a number is out of bounds.
        """
        if not text:
            return cls()
        kind, *numbers = text.split(":")
        try:
            *amounts, share = map(float, numbers)
        except ValueError:
            amounts, share = [], 0.0
        amount = amounts[0] if amounts else USUAL.get(kind, 0.0)
        tuned = kind in TUNED and 0 < amount <= 1e6
        if not (tuned or kind in USUAL) or len(amounts) > (kind in TUNED) or not 0 < share < 1:
            raise ValueError(f"expected {EXPECTED}, SHARE between 0 and 1")
        return cls(kind, amount, share)

    def attackers(self, seed: int, devices: int) -> frozenset[int]:
        """Which of the devices lie in a run of this seed."""
        order = generator(seed, 0, "attackers").permutation(devices)
        return frozenset(order[: int(self.share * devices + 1e-9)].tolist())

    def pictures(self, honest: Dataset, classes: int) -> Dataset:
        """What a liar learns from."""
        return replace(honest, labels_N=classes - 1 - honest.labels_N) if self.kind == "label-flip" else honest

    def tensors(self, honest: Tensors, rng: np.random.Generator) -> Tensors:
        """What it says that it learned, or measured."""
        return {name: self._values(name, values, rng) for name, values in honest.items()}

    def _values(self, name: str, values: Float32, rng: np.random.Generator) -> Float32:
        lie = values
        match self.kind:
            case "sign-flip":
                lie = values * np.float32(-self.amount)
            case "scale":
                lie = values * np.float32(self.amount)
            case "gaussian":
                lie = rng.normal(scale=self.amount, size=values.shape).astype(np.float32)
        return np.abs(lie) if name.endswith(".variance") else lie

    def payload(self, data: bytes) -> bytes:
        """What goes over the air."""
        if self.kind != "nan":
            return data
        start = _BEFORE_HEADER + int.from_bytes(data[3:_BEFORE_HEADER], "little")  # `protocol.codec.payload`
        return data[:start] + np.array([np.nan], dtype="<f4").tobytes() + data[start + 4 :]
