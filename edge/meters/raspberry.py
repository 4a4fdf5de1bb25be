"""Raspberry Pi 5, 500 and Compute Module 5: the power management chip, asked through the firmware.

`vcgencmd pmic_read_adc` prints the current and the voltage of each regulator's output. The numbers in parentheses say
nothing about which belong together; the names do (`VDD_CORE_A`, `VDD_CORE_V`). Their products are summed.

Not in it: the 5 V that go straight to USB and HATs, and the losses of the converters. One author's fit to a meter in
the supply (github.com/jfikar/RPi5-power) is board = 1.145 · sum + 0.588 W; it is not applied here, since a figure
should be what the sensor said. Raspberry Pi states no error; 10 % is the spread around that fit.

A reading starts a process: 1 ms of processor time and 2 ms in all on a desktop, several times that on a Pi, so at
`RATE_HZ` one or two percent of a core. The user must be in group video. Older Pis have no such chip.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

from edge.board import DEVICE_TREE, board_name
from edge.meters.base import Absent, Accuracy, Description, MeterError
from edge.meters.sampled import PowerMeter

NAME: Final = "raspberry"
COMMAND: Final = ("vcgencmd", "pmic_read_adc")
MODELS: Final = ("Raspberry Pi 5", "Raspberry Pi Compute Module 5")
"""Beginnings of what the device tree calls boards with the chip; the first stands for Pi 500 as well."""
RATE_HZ: Final = 5.0
TIMEOUT_S: Final = 2.0
MAX_MW: Final = 30_000.0
"""The supply gives at most 5 A at 5.1 V."""
_LINE: Final = re.compile(r"\s*(?P<rail>\w+)_(?P<unit>[AV])\s+(?:current|volt)\(\d+\)=(?P<value>[0-9.]+)(?P=unit)\s*")
_MW_PER_W: Final = 1000.0


def find(device_tree: Path = DEVICE_TREE) -> PowerMeter:
    """The board's own meter.

    Raises:
        Absent: this is no board with the chip.
    """
    model = board_name(device_tree) or "unknown"
    if not model.startswith(MODELS):
        raise Absent(f"meter {NAME}: board {model!r}, expected one of {', '.join(MODELS)}")
    return meter()


def meter() -> PowerMeter:
    """The same for who knows it is there: containers often do not show the device tree."""
    return PowerMeter(RaspberrySensor())


def rails_mw(text: str) -> dict[str, float]:
    """The power of each rail that has a current, in milliwatts.

    Raises:
        ValueError: a current without its voltage, or none at all.
    """
    values = {(match["rail"], match["unit"]): float(match["value"]) for match in _LINE.finditer(text)}
    amperes = {rail: value for (rail, unit), value in values.items() if unit == "A"}
    alone = sorted(rail for rail in amperes if (rail, "V") not in values)
    if alone or not amperes:
        found = f"{', '.join(alone)} without a voltage" if alone else repr(text[:80])
        raise ValueError(f"{' '.join(COMMAND)} says {found}, expected NAME_A and NAME_V of each rail")
    return {rail: value * values[rail, "V"] * _MW_PER_W for rail, value in amperes.items()}


class RaspberrySensor:
    """The sum over all rails with a current."""

    max_mw = MAX_MW
    description = Description(
        NAME,
        Accuracy.RAIL,
        10.0,
        RATE_HZ,
        "the board's regulators; not 5 V to USB and HATs, nor converter losses",
    )

    def __init__(self) -> None:
        self._rails: frozenset[str] = frozenset()

    def open(self) -> None:
        """Note which rails there are.

        Raises:
            Absent: the command is not installed.
            MeterError: it fails.
        """
        self._rails = frozenset(_ask())

    def read(self) -> float:
        """Milliwatts now.

        Raises:
            MeterError: the command fails, or rails are missing that were there before.
        """
        powers_mw = _ask()
        if lost := sorted(self._rails - powers_mw.keys()):
            raise MeterError(f"meter {NAME}: rails {', '.join(lost)} are missing, expected {len(self._rails)} rails")
        return sum(powers_mw.values())

    def close(self) -> None:
        """Nothing is held open."""


def _ask() -> dict[str, float]:
    called = " ".join(COMMAND)
    try:
        done = subprocess.run(
            COMMAND,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            start_new_session=True,  # Ctrl-C at the agent is no failure of its meter
        )
    except FileNotFoundError:
        raise Absent(f"meter {NAME}: {COMMAND[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise MeterError(f"meter {NAME}: {called} took more than {TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[:200]
        raise MeterError(f"meter {NAME}: {called} ended with status {done.returncode}: {said}")
    return rails_mw(done.stdout)
