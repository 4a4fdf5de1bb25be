"""One run of a study: a tier, a label and a setup; and the short form of it."""

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from simulation import tiers
from simulation.setup import Setup

from protocol import networks

CNN4: Final = "cnn4:width=1,input=1x28x28,classes=10"
NESTED_CNN4: Final = f"{CNN4},codes=nested"

TIERS: Final = {
    "f1": tiers.TIERS[tiers.Tier.F1],
    "f2": tiers.TIERS[tiers.Tier.F2],
    "z": tiers.TIERS[tiers.Tier.Z],
    "smoke": replace(tiers.TIERS[tiers.Tier.SMOKE], last=1),
}
"""A smoke run is judged after its last round alone: a mean over its three would be one over beginnings."""

TITLES: Final = {
    "f1": "Tier F1: Fashion-MNIST, IID, all of 10 devices, 25 rounds",
    "f2": "Tier F2: Fashion-MNIST, Dirichlet 0.3, 10 of 50 devices, 40 rounds",
    "z": "Tier Z: FedZip's CNN of 1.20 M parameters, Fashion-MNIST, IID, all of 10 devices",
    "smoke": "Smoke run in place of tier R: width 0.125, 3 of 10 devices, 3 rounds of 5 epochs",
}

QUICK: Final[dict[str, Any]] = {
    "data": "digits",
    "pictures": 0,
    "devices": 3,
    "sampled": 3,
    "epochs": 1,
    "rounds": 2,
    "last": 1,
    "judged": 0,
    "calibration_pictures": 64,
}
"""The short form: it shows that everything works, and nothing about accuracy."""
QUICK_WIDTH: Final = 0.25
"""Of the width that the tier has."""

STEP_S: Final = 1.2e-4
SECONDS_PER_MULTIPLY_ADD: Final = 1.9e-10
"""Cost of training on one picture, fixed and by multiply-adds, so that a run of cnn4 on F1 takes two or three minutes
on one core; only `--plan` uses them."""
FORWARD_SHARE: Final = 1 / 3
"""A forward pass alone, of the cost of training."""
SANDWICH: Final = 3
"""Networks that one step of `mqat` trains."""
TEST_PICTURES: Final = 10_000


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        tier: of `TIERS`.
        label: what it is, unique within its tier but for the seed.
        setup: what is run.
        faithful: whether it belongs to the scheme exactly as it was published, which runs on demand.
    """

    tier: str
    label: str
    setup: Setup
    faithful: bool = False

    @property
    def seed(self) -> int:
        """Of the setup."""
        return self.setup.seed

    @property
    def name(self) -> str:
        """Names the run's file."""
        return re.sub(r"[^\w.+-]+", "-", f"{self.tier}-{self.label}-s{self.seed}")

    @property
    def estimate_s(self) -> float:
        """Roughly how long it takes on one core."""
        setup = self.setup
        network = networks.parse(setup.network)
        pictures = setup.pictures or 60_000
        share = pictures * setup.sampled / setup.devices
        trained = share * setup.epochs * setup.rounds * (SANDWICH if len(setup.precisions) > 1 else 1)
        measured = TEST_PICTURES + setup.sampled * setup.calibration_pictures
        judged = len(setup.evaluate) * setup.judged_rounds * measured * FORWARD_SHARE
        return (trained + judged) * (STEP_S + network.multiply_adds * SECONDS_PER_MULTIPLY_ADD)


def tier_setup(tier: str, seed: int, network: str, **changes: Any) -> Setup:
    """A setup of a tier."""
    return replace(TIERS[tier], network=network, seed=seed, **changes)


def quick(run: Run) -> Run:
    """The short form of a run: digits, a narrow network, two rounds."""
    narrow = re.sub(r"width=([\d.]+)", lambda match: f"width={QUICK_WIDTH * float(match[1]):g}", run.setup.network)
    return replace(run, setup=replace(run.setup, network=narrow, **QUICK))
