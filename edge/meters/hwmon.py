"""Power from the kernel's own drivers: hwmon, and the older iio form that NVIDIA's kernels have.

One reading is one or two small files, each a transfer on the I2C bus of about a millisecond that the kernel does.
hwmon numbers change with every boot, so a chip is found by its name and a rail by its label, never by a number.

Sources: Documentation/hwmon/sysfs-interface.rst, ina3221.rst and ina2xx.rst of the Linux kernel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.meters.base import Absent, Accuracy, Description
from edge.meters.sampled import PowerMeter

_UW_PER_MW: Final = 1000.0
_UW_PER_MV_MA: Final = 1.0
RATE_HZ: Final = 10.0
MAX_MW: Final = 200_000.0
"""More than any board that this agent runs on takes."""


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply line of a chip.

    Attributes:
        label: what the board's device tree calls it, empty for none.
        millivolts, milliamperes: files whose product is its power.
        microwatts: a file with the power itself, None where the chip has none.
        milliwatts: the same of the iio driver.
    """

    label: str
    millivolts: Path | None = None
    milliamperes: Path | None = None
    microwatts: Path | None = None
    milliwatts: Path | None = None

    def read_mw(self) -> float:
        """Its power now.

        Raises:
            OSError: the driver does not answer.
            ValueError: it answers no number.
        """
        if self.milliwatts is not None:
            return float(read_number(self.milliwatts))
        if self.microwatts is not None:
            return read_number(self.microwatts) / _UW_PER_MW
        assert self.millivolts is not None
        assert self.milliamperes is not None
        return read_number(self.millivolts) * read_number(self.milliamperes) * _UW_PER_MV_MA / _UW_PER_MW


def read_number(path: Path) -> int:
    """The whole number that a file of sysfs holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none; the message names file and content.
    """
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path} says {text[:40]!r}, expected a whole number") from None


def chips(sysfs: Path, name: str) -> Iterator[Path]:
    """The folders of all chips that their driver calls `name`."""
    for folder in sorted(sysfs.glob("class/hwmon/hwmon*")):
        if _text(folder / "name") == name:
            yield folder


def rails(chip: Path) -> Iterator[Rail]:
    """Every channel of a chip that has voltage and current, or power."""
    for current in sorted(chip.glob("curr*_input")):
        channel = current.name.removeprefix("curr").removesuffix("_input")
        # A chip of one channel has its shunt's voltage as in0 and the supply's as in1, and curr1 belongs to both.
        voltage, power = chip / f"in{channel}_input", chip / f"power{channel}_input"
        label = _text(chip / f"in{channel}_label")
        if power.exists():
            yield Rail(label, microwatts=power)
        elif voltage.exists():
            yield Rail(label, millivolts=voltage, milliamperes=current)


def iio_rails(chip: Path) -> Iterator[Rail]:
    """The same of an `iio:device` folder of NVIDIA's ina3221x driver."""
    for power in sorted(chip.glob("in_power*_input")):
        channel = power.name.removeprefix("in_power").removesuffix("_input")
        yield Rail(_text(chip / f"rail_name_{channel}"), milliwatts=power)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


class HwmonSensor:
    """One chip, wired into the supply of this device by its owner, behind a driver of the kernel.

    Args:
        chip: the driver's name for it, for example ina226.
        sysfs: where the kernel shows its devices.
    """

    max_mw = MAX_MW

    def __init__(self, chip: str, sysfs: Path = Path("/sys")) -> None:
        self._chip, self._sysfs = chip, sysfs
        # 1 %: the usual shunt resistor. The chip's own error (data sheets, see `ina`) is smaller.
        includes = f"what flows through the shunt of the {chip}"
        self.description = Description(f"hwmon {chip}", Accuracy.RAIL, 1.5, RATE_HZ, includes)
        self._rail: Rail | None = None

    def open(self) -> None:
        """Find the chip's one rail.

        Raises:
            Absent: there is no such chip, or several channels to choose from.
        """
        found = [rail for folder in chips(self._sysfs, self._chip) for rail in rails(folder)]
        if len(found) != 1:
            where = self._sysfs / "class/hwmon"
            raise Absent(f"meter hwmon:{self._chip}: {len(found)} channels of such chips in {where}, expected one")
        self._rail = found[0]

    def read(self) -> float:
        """Milliwatts now."""
        assert self._rail is not None
        return self._rail.read_mw()

    def close(self) -> None:
        """Forget the rail."""
        self._rail = None


def hwmon(argument: str, sysfs: Path = Path("/sys")) -> PowerMeter:
    """The meter of `hwmon:NAME`.

    Raises:
        ValueError: no name.
    """
    if not argument:
        raise ValueError("expected the driver's name of a chip, for example hwmon:ina226")
    return PowerMeter(HwmonSensor(argument, sysfs))
