"""The tiers of ALGORITHMS section 5 as setups.

Learning rates are those that suit plain averaging at fp32 best, and every method has the same: on F1 0.2 of 0.05, 0.1,
0.2 and 0.4, on F2 0.1 of 0.05, 0.1 and 0.2 (`scripts/simulate --tier f2 --learning-rate 0.1`), on Z 0.05; at 0.1 its
network, which nothing normalises, learns nothing. Z has fewer pictures and rounds, since a step of its costs as much as
fourteen on F1.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Final

from simulation.setup import Setup


class Tier(StrEnum):
    """Their names on the command line."""

    F1 = "f1"
    F2 = "f2"
    Z = "z"
    R = "r"
    SMOKE = "smoke"


_F1 = Setup("cnn4:width=1,input=1x28x28,classes=10", learning_rate=0.2)
_R = Setup("resnet18:width=1,stem=3x3,input=1x32x32,classes=10", pictures=0, sampled=3, rounds=30, epochs=5, last=10)

TIERS: Final[dict[Tier, Setup]] = {
    Tier.F1: _F1,
    Tier.F2: replace(_F1, pictures=0, partition="dirichlet:0.3", devices=50, rounds=40, learning_rate=0.1),
    Tier.Z: replace(
        _F1,
        network="fedzip-cnn:width=1,input=1x28x28,classes=10",
        pictures=10_000,
        rounds=20,
        learning_rate=0.05,
    ),
    Tier.R: _R,
    Tier.SMOKE: replace(_R, network=_R.network.replace("width=1,", "width=0.125,"), rounds=3, last=3),
}
