"""Commands of `bitfleet-aggregator` about who waits, who steers, and who did what."""

from typing import Annotated
from urllib.parse import quote

import typer

from aggregator import tables
from aggregator.console import client, show
from aggregator.options import DeviceArgument, JsonOption, StateOption, UrlOption
from aggregator.roles import GIVEN, Role

user = typer.Typer(no_args_is_help=True, help="Give people and programs tokens for the HTTP door, and take them back.")
UserArgument = Annotated[str, typer.Argument(help="Name of the user.")]


@user.command("add")
def add(
    name: UserArgument,
    *,
    role: Annotated[str, typer.Option(help=f"{', '.join(GIVEN)}.")] = Role.VIEWER.value,
    state: StateOption,
    url: UrlOption = None,
) -> None:
    """Make a token for somebody. It is shown once; BITFLEET_TOKEN and BITFLEET_URL take it elsewhere.

    [bold]bitfleet-aggregator user add grace --role operator[/bold]
    """
    print(client(url, state).post("/users", {"name": name, "role": role})["token"])


@user.command("list")
def every(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List who has a token."""
    show(client(url, state).get("/users"), tables.users, as_json=as_json)


@user.command("remove")
def remove(name: UserArgument, state: StateOption, url: UrlOption = None) -> None:
    """Take somebody's token back."""
    client(url, state).delete(f"/users/{quote(name, '')}")


def applicants(state: StateOption, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List devices that wait for approval (approve = "manual"), with the fingerprints of their keys."""
    show(client(url, state).get("/applicants"), tables.applicants, as_json=as_json)


def approve(device: DeviceArgument, state: StateOption, url: UrlOption = None) -> None:
    """Take in a device that waits.

    [bold]bitfleet-aggregator approve pi-07[/bold]
    """
    client(url, state).post(f"/applicants/{quote(device, '')}/approve")


def reject(device: DeviceArgument, state: StateOption, url: UrlOption = None) -> None:
    """Turn away a device that waits."""
    client(url, state).post(f"/applicants/{quote(device, '')}/reject")


def audit(
    *,
    last: Annotated[int, typer.Option(help="How many of the newest rows.", min=1, max=1000)] = 50,
    state: StateOption,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who commanded what, the newest first."""
    found = client(url, state).get(f"/audit?newest_first=true&limit={last}")
    show(found, tables.audit, as_json=as_json)
