"""`bitfleet-edge meters`: which meters this device has, and what they say now."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge.config import read_config
from edge.meters.look import Look, look_around
from edge.options import ConfigFile

Meter = Annotated[
    str | None,
    typer.Option(
        "--meter",
        help="auto, none, jetson, raspberry, rapl, ina219:bus=1,address=0x40,shunt=0.1 (or ina226, ina260),"
        " hwmon:NAME, shelly:mqtt://HOST/ID, tasmota:mqtt://HOST/TOPIC, replay:FILE.",
    ),
]


def meters(
    config: ConfigFile = None,
    meter: Meter = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Show which energy meters this device has, how far to trust each, and what it says now.

    Class: rail is the supply of the board, package the processor alone, wall the mains with the losses of the power
    supply, model no sensor at all. Each meter is asked for a second.

    Examples:
        bitfleet-edge meters

        bitfleet-edge meters --meter ina219:bus=1,address=0x40,shunt=0.1

        bitfleet-edge meters --meter shelly:mqtt://10.0.0.2/shellyplugs-a1b2c3 --json
    """
    _shown(look_around(read_config(config, {"meter": meter}).meter), as_json=as_json)


def _shown(looks: list[Look], *, as_json: bool) -> None:
    """Print them."""
    if as_json:
        print(json.dumps([look.as_json() for look in looks]))
        return
    console = Console()
    if not looks:
        console.print("no meter: energy is modelled, and every figure says so; a chip or a plug is named with --meter")
        return
    table = Table("meter", "class", "error", "rate", "watts now", "what is in it")
    for look in looks:
        table.add_row(*_row(look))
    console.print(table)


def _row(look: Look) -> tuple[str, ...]:
    what = look.description
    if what is None:
        return escape(look.spec), "", "", "", "", f"[yellow]{escape(look.problem)}[/]"
    watts = "–" if look.watts is None else f"{look.watts:.3f} W"
    said = f"[yellow]{escape(look.problem)}[/]" if look.problem else escape(what.includes)
    return escape(look.spec), what.accuracy, f"±{what.error_percent:g} %", f"{what.rate_hz:g} Hz", watts, said
