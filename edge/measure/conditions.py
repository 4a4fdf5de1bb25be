"""Under which conditions it was measured. What a board does not tell is None, and nothing is guessed."""

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from edge.board import board_name
from edge.gates import read_temperature_c
from edge.measure.throttling import Throttling, read_throttling

PACKAGES: Final = ("bitfleet", "numpy", "onnxruntime", "torch")
_CPU: Final = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Moment:
    """What changes while measuring.

    Attributes:
        frequency_mhz: of the fastest core now.
        temperature_c: of the hottest sensor.
        load_1min: processes that wanted a processor, mean over a minute.
        throttling: reasons in force and events since the start.
    """

    frequency_mhz: float | None
    temperature_c: float | None
    load_1min: float | None
    throttling: Throttling | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What does not, and two moments.

    Attributes:
        board: its own name, else the processor's.
        kernel: its release; machine the instruction set.
        cores: that the system sees; threads what was computed with.
        governor: of the clock rate, several joined by a comma.
        nice: of this process.
        versions: of Python and the packages that compute; what is not installed is left out.
    """

    board: str
    machine: str
    kernel: str
    cores: int
    threads: int
    governor: str | None
    nice: int
    versions: dict[str, str]
    before: Moment
    after: Moment


def moment(root: Path = Path("/"), throttling: Callable[[Path], Throttling | None] = read_throttling) -> Moment:
    """As it is now."""
    rates_khz = [int(text) for text in _texts(root, "cpu*/cpufreq/scaling_cur_freq") if text.isdecimal()]
    return Moment(
        frequency_mhz=max(rates_khz) / 1e3 if rates_khz else None,
        temperature_c=read_temperature_c(),
        load_1min=_load(),
        throttling=throttling(root),
    )


def conditions(threads: int, before: Moment, after: Moment, root: Path = Path("/")) -> Conditions:
    """All there is to say of this machine."""
    governors = sorted(set(_texts(root, "cpu*/cpufreq/scaling_governor")))
    return Conditions(
        board=board(root),
        machine=platform.machine(),
        kernel=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        threads=threads,
        governor=",".join(governors) or None,
        nice=os.nice(0),
        versions={"python": platform.python_version()} | _versions(),
        before=before,
        after=after,
    )


def board(root: Path = Path("/")) -> str:
    """The board's name by its device tree, else the processor's by Linux, else the machine's."""
    if (name := board_name(root / "proc/device-tree")) is not None:
        return name
    with suppress(OSError):
        for line in (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _load() -> float | None:
    with suppress(OSError):
        return os.getloadavg()[0]
    return None


def _texts(root: Path, pattern: str) -> list[str]:
    texts = []
    for path in root.glob(f"{_CPU}/{pattern}"):
        with suppress(OSError):
            texts.append(path.read_text().strip())
    return texts
