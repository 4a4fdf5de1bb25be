"""NVIDIA Jetson: the INA3221 power monitors on the module.

Two drivers exist. Kernels of JetPack 4 have ina3221x (iio): `in_power0_input` in mW beside `rail_name_0`. From JetPack
5 on it is ina3221 (hwmon): `in1_input` in mV and `curr1_input` in mA beside `in1_label`. Which rails there are depends
on the module; `BOARDS` says which of them make up its whole supply, and no rail is counted that hangs behind another.

Error: INA3221 data sheet (Texas Instruments SBOS576), gain error at most 0.25 % of each of shunt and supply voltage;
the modules' shunts are 1 % (Jetson OEM design guides). Under one watt the shunt's offset of up to 80 µV (16 mA on 5 mΩ)
is more than that. A reading costs two transfers on I2C for each rail, about 2 ms in which the processor is free.

Thor has an INA238 at the input of its board as well: `hwmon:ina238`. Not tried on a board yet: AGX Orin's sum.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.meters.base import Absent, Accuracy, Description, MeterError
from edge.meters.hwmon import Rail, chips, iio_rails, rails
from edge.meters.sampled import PowerMeter

NAME: Final = "jetson"
BOARDS: Final = {
    ("VDD_IN",): "the whole module (VDD_IN), without its carrier board",
    ("POM_5V_IN",): "the whole module (POM_5V_IN), without its carrier board",
    # VDDQ_VDD2_1V8AO is measured at the 5 V of VIN_SYS_5V0, so it is taken to hang behind it.
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"): "the module's input rails (AGX Orin), without its carrier board",
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"): "the module's input rails (AGX Xavier), without its carrier board",
}
"""The rails to add, and what they are together. The first whose rails are all there counts."""
RATE_HZ: Final = 10.0
"""The chips average over some tens of milliseconds by themselves, so faster asking says the same twice."""
ERROR_PERCENT: Final = 2.0
MAX_MW: Final = 200_000.0
"""Above the input limit of the largest module, 168 W for Thor."""


def find(sysfs: Path = Path("/sys")) -> PowerMeter:
    """The module's own meter.

    Raises:
        Absent: there is no INA3221.
        MeterError: there is, but none of the known sets of rails.
    """
    return PowerMeter(JetsonSensor(sysfs))


class JetsonSensor:
    """The sum of the rails that make up the module."""

    max_mw = MAX_MW

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._sysfs = sysfs
        self._rails = self._find()
        includes = BOARDS[tuple(rail.label for rail in self._rails)]
        self.description = Description(NAME, Accuracy.RAIL, ERROR_PERCENT, RATE_HZ, includes)

    def open(self) -> None:
        """Look the rails up again: numbers change when a driver is loaded anew.

        Raises:
            MeterError: they are gone.
        """
        self._rails = self._find()

    def read(self) -> float:
        """Milliwatts now."""
        return sum(rail.read_mw() for rail in self._rails)

    def close(self) -> None:
        """Nothing is held open: each reading opens its files."""

    def _find(self) -> tuple[Rail, ...]:
        found = {rail.label: rail for rail in _all_rails(self._sysfs)}
        if not found:
            raise Absent(f"meter {NAME}: no INA3221 in {self._sysfs} (drivers ina3221 and ina3221x)")
        for labels in BOARDS:
            if all(label in found for label in labels):
                return tuple(found[label] for label in labels)
        expected = ", or ".join("+".join(labels) for labels in BOARDS)
        raise MeterError(f"meter {NAME}: rails {', '.join(sorted(found))}; expected {expected}")


def _all_rails(sysfs: Path) -> Iterator[Rail]:
    for chip in chips(sysfs, "ina3221"):
        yield from rails(chip)
    for chip in sorted(sysfs.glob("bus/i2c/drivers/ina3221x/*/iio:device*")):
        yield from iio_rails(chip)
