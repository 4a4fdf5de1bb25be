"""`bitfleet-aggregator export`: what devices should run, as files in a folder."""

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from aggregator import state_dir, tables
from aggregator.blobs import BlobReader
from aggregator.handout import Handout, Selection, hand_out
from aggregator.options import JsonOption, StateOption
from aggregator.service import load_hold_out
from aggregator.store import MAIN, StoreReader
from export.cache import Cache
from export.console import CacheOption, progress_bar
from export.errors import ExportError
from export.files import write_together

INDEX: Final = "devices.json"


def export_for_devices(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to: WxAy.onnx for each precision, devices.json.")],
    device: Annotated[list[str] | None, typer.Option(help="Name of a device; may be given several times.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group, or devices whose names match: 'pi-*'.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every device of the fleet.")] = False,
    number: Annotated[
        int | None, typer.Option("--round", help="The round whose model it is; the newest if not given.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="Held-out pictures (.npz), as for serve, for what is not exported yet.")
    ] = None,
    job: Annotated[str, typer.Option(help="Of which job, where the fleet has several.")] = MAIN,
    fleet: Annotated[str | None, typer.Option(help="Name of the fleet, where no export tells it.")] = None,
    cache: CacheOption = None,
    state: StateOption,
    as_json: JsonOption = False,
) -> None:
    """Write the model of every chosen device at the precision it was given, from a running or a stopped aggregator.

    Each precision is one file, the very one that the aggregator offers where it made it, else made here on all cores.

    [bold]bitfleet-aggregator export --all --out models/[/bold]

    [bold]bitfleet-aggregator export --device pi-kitchen --group 'jetson-*' --round 7 --out models/[/bold]
    """
    store = StoreReader(state / state_dir.DATABASE)
    try:
        with progress_bar("exporting") as progress:
            found = hand_out(
                store.of(job),
                BlobReader(state / state_dir.BLOBS),
                Selection(tuple(device or ()), tuple(group or ()), everyone),
                number=number,
                hold_out=None if holdout is None else load_hold_out(holdout),
                fleet=fleet,
                cache=None if cache is None else Cache(cache),
                progress=progress,
            )
    finally:
        store.close()
    index = _index(found)
    files = {out / _file(precision): each.model for precision, each in found.files.items()}
    out.mkdir(parents=True, exist_ok=True)
    write_together(files | {out / INDEX: json.dumps(index, indent=1).encode() + b"\n"})
    if as_json:
        print(json.dumps(index, indent=1))
    else:
        Console().print(tables.handout(index), highlight=False)
    if found.failed:
        raise ExportError("; ".join(found.failed.values()))


def _index(found: Handout) -> dict[str, Any]:
    """Who gets which file; null where there is none."""
    files = {
        precision: {
            "file": _file(precision),
            "bytes": len(each.model),
            "sha256": each.digest,
            "made": "before" if each.kept else "now",
        }
        for precision, each in found.files.items()
    }
    nothing = dict.fromkeys(("file", "bytes", "sha256", "made"))
    return {
        "round": found.version,
        "model_sha256": found.model_digest,
        "devices": [
            {"device": name, "precision": precision, **files.get(precision, nothing)}
            for name, precision in found.precisions.items()
        ],
        "failed": dict(found.failed),
    }


def _file(precision: str) -> str:
    return f"{precision}.onnx"
