"""Options that commands of `bitfleet-edge` share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="BITFLEET_EDGE_CONFIG", help="TOML file with settings.")
]
StateDir = Annotated[
    Path | None, typer.Option("--state", envvar="BITFLEET_EDGE_STATE", help="Folder for key, journal and models.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Threads = Annotated[int | None, typer.Option("--threads", help="That compute; default: as the agent does.")]
