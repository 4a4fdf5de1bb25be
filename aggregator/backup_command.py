"""`bitfleet-aggregator backup` and `restore-backup`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal

from aggregator.backup import back_up, put_back
from aggregator.options import JsonOption, StateOption
from export.console import progress_bar


def backup(
    target: Annotated[Path, typer.Argument(help="File to write, .tar or .tar.gz; replaced if it exists.")],
    *,
    state: StateOption,
    as_json: JsonOption = False,
) -> None:
    """Write everything the fleet must remember to one file, while the aggregator runs or not. It holds its keys.

    [bold]bitfleet-aggregator backup fleet-2026-11-25.tar.gz[/bold]
    """
    with progress_bar("backing up") as progress:
        files = back_up(state, target, progress)
    size = target.stat().st_size
    if as_json:
        print(json.dumps({"file": str(target), "files": files, "bytes": size}))
    else:
        Console().print(f"wrote {target}: {files} files, {decimal(size)}", highlight=False)


def restore_backup(
    source: Annotated[Path, typer.Argument(help="File that backup wrote.")],
    *,
    state: StateOption,
    as_json: JsonOption = False,
) -> None:
    """Make an empty state directory what it was when a backup was taken; every file is checked first.

    Devices go on with it: what they sent since is refused, and their next round begins from the restored model.

    [bold]bitfleet-aggregator restore-backup fleet-2026-11-25.tar.gz --state /var/lib/bitfleet[/bold]
    """
    with progress_bar("restoring") as progress:
        files = put_back(source, state, progress)
    if as_json:
        print(json.dumps({"state": str(state), "files": files}))
    else:
        Console().print(f"{state} holds {files} files again", highlight=False)
