"""Commands of `bitfleet-aggregator` about who may join and where devices belong."""

import json
from typing import Annotated
from urllib.parse import quote

import typer

from aggregator import tables
from aggregator.console import client, show
from aggregator.options import DeviceArgument, JsonOption, StateOption, UrlOption


def token(
    *,
    state: StateOption,
    uses: Annotated[int, typer.Option(help="How many devices may join with it.")] = 1,
    ttl: Annotated[float, typer.Option(help="Seconds until it expires.")] = 3600.0,
    group: Annotated[str, typer.Option(help="The group that devices come into.")] = "",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    revoke: Annotated[str | None, typer.Option(help="Instead forget the one that 'tokens' calls so.")] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a join token for new devices. It is shown once.

    [bold]bitfleet-aggregator token --uses 6 --ttl 86400 --group kitchen[/bold]

    [bold]bitfleet-aggregator token --revoke 5f3c09a2b1d4[/bold]
    """
    if revoke is not None:
        client(url, state).delete(f"/tokens/{quote(revoke, '')}")
        return
    answer = client(url, state).post("/tokens", {"uses": uses, "ttl_s": ttl, "note": note, "group": group})
    print(json.dumps(answer) if as_json else answer["token"])


def tokens(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List join tokens that still let somebody in, without their secrets."""
    show(client(url, state).get("/tokens"), tables.tokens, as_json=as_json)


def group(
    device: DeviceArgument,
    name: Annotated[str, typer.Argument(help="The group; leave out to take the device out of any.")] = "",
    *,
    state: StateOption,
    url: UrlOption = None,
) -> None:
    """Move a device into a group.

    [bold]bitfleet-aggregator group pi-07 kitchen[/bold]
    """
    client(url, state).put(f"/devices/{quote(device, '')}/group", {"group": name})
