"""Options that commands of `bitfleet-aggregator` share."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.config import default_state_dir

StateOption = Annotated[
    Path,
    typer.Option(
        "--state",
        help="State directory of an aggregator on this machine; it knows address and token.",
        envvar="BITFLEET_STATE",
        default_factory=default_state_dir,
        show_default="~/.local/state/bitfleet",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="Its HTTP address, when it runs elsewhere.")]
DeviceArgument = Annotated[str, typer.Argument(help="Name of the device.")]
