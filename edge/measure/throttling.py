"""Whether the board slows itself down: too hot, too little voltage, too much current.

- Raspberry Pi: `vcgencmd get_throttled`, bits 0–3 for now and 16–19 for ever since the start
  (https://www.raspberrypi.com/documentation/computers/os.html#get_throttled).
- x86: counters below `cpu*/thermal_throttle` (Linux, `Documentation/admin-guide/RAS`, thermal vector).
- Jetson: cooling devices whose type ends in `-throttle-alert` or is `hot-surface-alert`, and the over-current counters
  of hwmon `soctherm_oc` (NVIDIA Jetson Linux Developer Guide, "Power and Performance").
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PI_FLAGS: Final = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_STICKY_SHIFT: Final = 16
_VCGENCMD_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Throttling:
    """What the board says at one moment: reasons in force, and how many events there were since it started."""

    active: tuple[str, ...]
    events: int


def read_throttling(root: Path = Path("/"), ask_pi: Callable[[], str] | None = None) -> Throttling | None:
    """The state by every source there is; None where there is none.

    Args:
        root: of the file system.
        ask_pi: what `vcgencmd get_throttled` prints, empty for no answer; None to run it.
    """
    found = [*_pi((ask_pi or _vcgencmd)()), *_x86(root), *_jetson(root)]
    if not found:
        return None
    active = tuple(reason for throttling in found for reason in throttling.active)
    return Throttling(active, sum(throttling.events for throttling in found))


def throttled_between(before: Throttling | None, after: Throttling | None) -> str:
    """Why a window between the two does not count, empty if it does."""
    if before is None or after is None:
        return ""
    reasons = dict.fromkeys((*before.active, *after.active))
    if reasons:
        return f"throttled: {', '.join(reasons)}"
    events = after.events - before.events
    return f"throttled: {events} new events" if events else ""


def _pi(answer: str) -> Iterator[Throttling]:
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]+)", answer.strip())
    if match is not None:
        bits = int(match[1], 16)
        active = tuple(name for bit, name in enumerate(_PI_FLAGS) if bits >> bit & 1)
        yield Throttling(active, (bits >> _STICKY_SHIFT).bit_count())


def _x86(root: Path) -> Iterator[Throttling]:
    counters = list(root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"))
    if counters:
        yield Throttling((), sum(map(_number, counters)))


def _jetson(root: Path) -> Iterator[Throttling]:
    for kind in root.glob("sys/class/thermal/cooling_device*/type"):
        name = _text(kind)
        if name.endswith("-throttle-alert") or name == "hot-surface-alert":
            yield Throttling((name,) if _number(kind.with_name("cur_state")) else (), 0)
    for name_file in root.glob("sys/class/hwmon/hwmon*/name"):
        if _text(name_file) == "soctherm_oc":
            yield Throttling((), sum(map(_number, name_file.parent.glob("oc*_event_cnt"))))


def _vcgencmd() -> str:
    program = shutil.which("vcgencmd")
    if program is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        command = [program, "get_throttled"]
        return subprocess.run(command, capture_output=True, text=True, timeout=_VCGENCMD_S, check=True).stdout
    return ""


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0
