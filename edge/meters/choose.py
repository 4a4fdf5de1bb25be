"""From the setting `meter` to a meter: parsed when settings are read, looked for when it is to be opened.

    auto                                  the first that this board has of itself: jetson, raspberry, rapl
    none                                  energy is modelled
    jetson | raspberry | rapl             that one
    ina219:bus=1,address=0x40,shunt=0.1   a chip on I2C; also ina226, ina260 (which has its shunt inside)
    hwmon:ina226                          the same chip behind a driver of the kernel
    shelly:mqtt://host/ID                 a plug; also tasmota:mqtt://user:password@host:1883/TOPIC
    replay:FILE                           a trace that scripts/record_meter wrote

`auto` never takes a plug or a bare chip: what they are wired to, only their owner knows.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from edge.board import DEVICE_TREE
from edge.meters import jetson, rapl, raspberry
from edge.meters.base import Absent, Meter, MeterError
from edge.meters.hwmon import hwmon
from edge.meters.ina import ina
from edge.meters.modelled import ModelledMeter
from edge.meters.plug import plug
from edge.meters.replay import replay

AUTO: Final = "auto"
NONE: Final = "none"

Find = Callable[[], Meter]
"""Makes the meter, not yet entered; raises MeterError where it is not there."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where the kernel shows its devices."""

    sysfs: Path = Path("/sys")
    device_tree: Path = DEVICE_TREE


HERE: Final = Host()


@dataclass(frozen=True, slots=True)
class Opened:
    """A meter that runs.

    Attributes:
        meter: it.
        notes: why it is not the one that was asked for, or which were passed over; mostly empty.
    """

    meter: Meter
    notes: tuple[str, ...] = ()


def boards(host: Host = HERE) -> dict[str, Find]:
    """What a board may have of itself, in the order in which `auto` looks."""
    return {
        jetson.NAME: lambda: jetson.find(host.sysfs),
        raspberry.NAME: lambda: raspberry.find(host.device_tree),
        rapl.NAME: lambda: rapl.find(host.sysfs),
    }


def parse_meter(spec: str, host: Host = HERE) -> list[Find]:
    """What is to be tried, in order, for a setting.

    Raises:
        ValueError: there is no such setting; the message says what was expected.
    """
    kind, colon, argument = spec.partition(":")
    if not colon and kind in _PLAIN:
        found = boards(host)
        named: dict[str, list[Find]] = {name: [find] for name, find in found.items()}
        named |= {AUTO: [*found.values()], NONE: [ModelledMeter], raspberry.NAME: [raspberry.meter]}
        return named[kind]
    if kind in _WITH_ARGUMENT:
        return [_WITH_ARGUMENT[kind](argument, host)]
    near = difflib.get_close_matches(kind, [*_PLAIN, *_WITH_ARGUMENT], n=1)
    hint = f"did you mean {near[0]}?" if near and near[0] != kind else f"expected {', '.join(_PLAIN)} or {_ARGUED}"
    raise ValueError(hint)


@contextmanager
def open_meter(spec: str, host: Host = HERE) -> Iterator[Opened]:
    """The meter of a setting, running while the block does; the modelled one, with notes, where it does not answer.

    Raises:
        ValueError: there is no such setting.
    """
    notes: list[str] = []
    with ExitStack() as stack:
        for find in parse_meter(spec, host):
            try:
                meter = stack.enter_context(find())
            except Absent as error:
                if spec != AUTO:
                    notes.append(str(error))
            except MeterError as error:
                notes.append(str(error))
            else:
                yield Opened(meter, tuple(notes))
                return
        yield Opened(stack.enter_context(ModelledMeter()), tuple(notes))


def without_login(spec: str) -> str:
    """The setting as it may be shown: user and password of a URL left out."""
    return re.sub(r"//[^/@]*@", "//…@", spec)


def _checked(find: Find) -> Find:
    """`find`, which was tried once, since what it makes says by ValueError what is wrong with the setting."""
    find()
    return find


def _replay(argument: str) -> Find:
    if not argument:
        raise ValueError("expected a file, for example replay:jetson.jsonl")
    return partial(replay, argument)


_PLAIN: Final = (AUTO, NONE, jetson.NAME, raspberry.NAME, rapl.NAME)
_ARGUED: Final = "ina219:…, ina226:…, ina260:…, hwmon:NAME, shelly:mqtt://…, tasmota:mqtt://…, replay:FILE"
_WITH_ARGUMENT: Final[dict[str, Callable[[str, Host], Find]]] = {
    "ina219": lambda argument, _: _checked(partial(ina, "ina219", argument)),
    "ina226": lambda argument, _: _checked(partial(ina, "ina226", argument)),
    "ina260": lambda argument, _: _checked(partial(ina, "ina260", argument)),
    "hwmon": lambda argument, host: _checked(partial(hwmon, argument, host.sysfs)),
    "shelly": lambda argument, _: _checked(partial(plug, "shelly", argument)),
    "tasmota": lambda argument, _: _checked(partial(plug, "tasmota", argument)),
    "replay": lambda argument, _: _replay(argument),
}
