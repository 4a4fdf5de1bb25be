"""Intel and AMD processors: the energy counters that Linux shows as powercap (RAPL).

Counted are all packages (`intel-rapl:0`, or one for each die) and, where there is one, each package's DRAM, which lies
outside of it. Core and uncore lie inside the package and are not counted again; neither is psys, the platform by the
count of a chip that few makers calibrate.

The counters are brought up to date about every millisecond, so short spans are measured well; they wrap after minutes
to an hour, so they are read once a second. A reading is one small file for each counter: some microseconds.

Sources: Documentation/power/powercap/powercap.rst of the Linux kernel; Intel SDM volume 3B, "Platform specific power
management support". No data sheet states an error; comparisons with meters at the wall since Haswell find a few percent
(K. N. Khan et al., RAPL in Action, ACM TOMPECS 3(2), 2018). Files are readable by root alone since CVE-2020-8694.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.meters.base import Absent, Accuracy, Description, MeterError
from edge.meters.hwmon import read_number
from edge.meters.sampled import SampledMeter
from edge.meters.tally import Differences

NAME: Final = "rapl"
RATE_HZ: Final = 1.0
ERROR_PERCENT: Final = 5.0
MAX_MW: Final = 1_000_000.0
"""Of one counter; the largest server processors take half of it."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A counter: its name, for example package-0 or dram, its file, and the value after which it begins at 0."""

    name: str
    counter: Path
    range_uj: int


def find(sysfs: Path = Path("/sys")) -> SampledMeter[tuple[int, ...]]:
    """The processor's own meter.

    Raises:
        Absent: there are no counters.
        MeterError: there are, but they say no range.
    """
    try:
        zones = _zones(sysfs)
    except (OSError, ValueError) as error:
        raise MeterError(f"meter {NAME}: {error}") from error
    if not zones:
        raise Absent(f"meter {NAME}: no package in {sysfs / 'class/powercap'}")
    return SampledMeter(RaplSensor(zones), Differences(NAME, MAX_MW, tuple(zone.range_uj for zone in zones)))


class RaplSensor:
    """The counters of all zones, in microjoules."""

    max_mw = MAX_MW

    def __init__(self, zones: tuple[Zone, ...]) -> None:
        self._zones = zones
        includes = f"{', '.join(zone.name for zone in zones)}; no disk, network, screen or supply"
        self.description = Description(NAME, Accuracy.PACKAGE, ERROR_PERCENT, RATE_HZ, includes)

    def open(self) -> None:
        """Nothing to do: the files stay where they are as long as the processor does."""

    def read(self) -> tuple[int, ...]:
        """Every counter now."""
        return tuple(read_number(zone.counter) for zone in self._zones)

    def close(self) -> None:
        """Nothing is held open."""


def _zones(sysfs: Path) -> tuple[Zone, ...]:
    """Packages and their DRAM. `intel-rapl-mmio:…` are the same counters by another way."""
    found = []
    for package in sorted(sysfs.glob("class/powercap/intel-rapl:*")):
        if package.name.count(":") != 1 or not (name := _name(package)).startswith("package"):
            continue
        found.append(_zone(package, name))
        found += [_zone(part, f"{name} dram") for part in sorted(package.glob("intel-rapl:*")) if _name(part) == "dram"]
    return tuple(found)


def _zone(folder: Path, name: str) -> Zone:
    return Zone(name, folder / "energy_uj", read_number(folder / "max_energy_range_uj"))


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
