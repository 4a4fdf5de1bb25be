"""`bitfleet-aggregator broker-config`: files for a broker of one's own, certified by the fleet's authority."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aggregator.authority import AUTHORITY, Authority, private_key
from aggregator.broker import DEFAULT_PORTS, BrokerUrl
from aggregator.broker_files import KINDS
from aggregator.keyring import CERTIFICATES, REVOKED, SERVER
from aggregator.options import StateOption
from aggregator.secret_files import write_whole
from protocol.topics import Topics


def broker_config(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Host name or address of the broker; may be given several times.")
    ] = None,
    installed: Annotated[
        Path | None, typer.Option("--installed", help="Where the files will lie on the broker; default: --out.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port for TLS.")] = DEFAULT_PORTS["mqtts"],
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")] = "bitfleet",
    state: StateOption,
) -> None:
    """Write the configuration of a broker that lets in this fleet's devices alone, each to its own topics.

    Certificates lie beside it. Then run the aggregator with --broker mqtts://NAME and broker_trust = "fleet".

    [bold]bitfleet-aggregator broker-config mosquitto --out broker --name mqtt.lan --installed /etc/bitfleet[/bold]
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"kind = {kind!r}: expected one of {', '.join(KINDS)}")
    folder = state / CERTIFICATES
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.open(folder, fleet)
    public = private_key(out / f"{SERVER}.key").public_key()
    certificate = authority.server(public, tuple(name or ()), time.time())
    listed = folder / REVOKED
    revoked = listed.read_bytes() if listed.exists() else authority.revoked((), float(int(time.time())))
    write_whole(out / AUTHORITY, authority.pem.encode())
    write_whole(out / f"{SERVER}.crt", certificate)
    write_whole(out / REVOKED, revoked)
    for file, text in KINDS[kind](Topics(fleet).root, str((installed or out).absolute()), port).items():
        write_whole(out / file, text.encode())
    where = BrokerUrl(name[0] if name else "HOST", port, tls=True)
    Console(stderr=True).print(
        f'wrote {out}; serve with --tls on, --broker {where} and broker_trust = "fleet"',
        highlight=False,
        soft_wrap=True,
    )
