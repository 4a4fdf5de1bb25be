"""What chosen devices should run, as files: each precision once, as the fleet made it, else made now.

The store and its blobs are only read, so the aggregator may run meanwhile.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import devices, exports, versions
from aggregator.blobs import BlobError, BlobReader
from aggregator.model import GlobalModel
from aggregator.room import HoldOut, noise
from aggregator.store import Device, Export, Model, Round, StoreReader
from export.batch import ExportJob, Progress, export_all
from export.cache import Cache
from export.errors import ExportError
from export.passes.attach_metadata import read_metadata
from export.writer import parse


class HandoutError(Exception):
    """Devices, a round or a name that the store does not know; the message names it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which devices: by name, by group (`kitchen`) or pattern of names (`pi-*`), or all."""

    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """An ONNX file. `kept` tells whether the fleet had made it; its devices were then offered these very bytes."""

    model: bytes = field(repr=False)
    kept: bool

    @property
    def digest(self) -> str:
        """SHA-256 in hex."""
        return sha256(self.model).hexdigest()


@dataclass(frozen=True, slots=True)
class Handout:
    """Files and who they are for.

    Attributes:
        version: of the model; its round's number.
        model_digest: of the global model that the files were made of.
        precisions: of every device, by name; empty where none is decided yet.
        files: by precision.
        failed: why there is no file, by precision.
    """

    version: int
    model_digest: str
    precisions: Mapping[str, str]
    files: Mapping[str, File]
    failed: Mapping[str, str]


def choose(session: Session, selection: Selection) -> dict[str, str]:
    """Precisions of the chosen devices, by name.

    Raises:
        HandoutError: a device is not there or has no precision yet, a group is empty, or nobody is chosen.
    """
    rows = devices.members(session)
    members = {row.id: row.precision for row in rows}
    chosen = set(members) if selection.everyone else set()
    for name in selection.names:
        _require(session, name, members)
        chosen.add(name)
    for group in selection.groups:
        chosen |= _matching(rows, group)
    if not chosen:
        raise HandoutError("no device is chosen: the fleet has none" if selection.everyone else "no device is chosen")
    return {name: members[name] for name in sorted(chosen)}


def _matching(rows: Sequence[Device], wanted: str) -> set[str]:
    """Devices of a group, or, since no group's name has a `*`, `?` or `[`, with names of a pattern."""
    if set(wanted) & set("*?["):
        matching = {row.id for row in rows if fnmatchcase(row.id, wanted)}
        missing = "no device of the fleet has such a name"
    else:
        matching = {row.id for row in rows if row.group == wanted}
        known = ", ".join(sorted({row.group for row in rows} - {""})) or "none"
        missing = f"no device of the fleet is in it; groups are: {known}; a pattern of names has a *"
    if not matching:
        raise HandoutError(f"group {wanted!r}: {missing}")
    return matching


def _require(session: Session, name: str, members: Mapping[str, str]) -> None:
    row = session.get(Device, name)
    if row is None:
        known = list(session.scalars(select(Device.id)))
        close = difflib.get_close_matches(name, known, 1)
        raise HandoutError(f"device {name!r} is not known" + (f"; did you mean {close[0]}?" if close else ""))
    if row.revoked:
        raise HandoutError(f"device {name!r} is revoked")
    if not members.get(name):
        raise HandoutError(
            f"device {name!r} has no precision yet: {row.reason or 'that is decided when a round opens'}"
        )


def model_of(session: Session, number: int | None) -> Model:
    """The model that a round made, or the newest.

    Raises:
        HandoutError: it made none.
    """
    model = versions.newest(session) if number is None else session.get(Model, number)
    if model is not None:
        return model
    if number is None:
        raise HandoutError("the store holds no model yet")
    row = session.get(Round, number)
    if row is not None:
        raise HandoutError(f"round {number} made no model: it is {row.state.value}")
    made = session.scalars(select(Model.version).order_by(Model.version)).all()
    known = f"from {made[0]} to {made[-1]}" if made else "none, the store holds no model yet"
    raise HandoutError(f"round {number} is not known: expected one {known}")


def hand_out(
    store: StoreReader,
    blobs: BlobReader,
    selection: Selection,
    *,
    number: int | None = None,
    hold_out: HoldOut | None = None,
    fleet: str | None = None,
    cache: Cache | None = None,
    progress: Progress,
) -> Handout:
    """Collect the files of every chosen device.

    Args:
        store: the fleet's database.
        blobs: its files.
        selection: which devices.
        number: of the round whose model it is; None for the newest.
        hold_out: what exports that are missing are checked on; noise if None.
        fleet: its name, where no export tells it.
        cache: of exports made before.
        progress: told of exports that are made.

    Raises:
        HandoutError: the store does not know a device, group or round, or the fleet's name is missing.
        BlobError: the model is missing or damaged.
        ModelError: it is no global model of this version.
    """
    with store.reading() as session:
        precisions = choose(session, selection)
        model = model_of(session, number)
        wanted = sorted({precision for precision in precisions.values() if precision})
        kept = _kept(session, blobs, model.version, wanted)
        version, digest, trained = model.version, model.digest, model.precisions
        fleet = fleet or _name(session, blobs)
    held = f"version {version} was trained at {', '.join(trained) or 'no precision'}"
    failed = {name: f"{name}: no profile of it, {held}" for name in wanted if name not in kept and name not in trained}
    missing = [name for name in wanted if name not in kept and name not in failed]
    jobs = _jobs(GlobalModel.from_bytes(blobs.get(digest)), version, missing, hold_out, fleet) if missing else []
    made = dict(zip(missing, export_all(jobs, cache=cache, progress=progress), strict=True))
    failed |= {name: str(each) for name, each in made.items() if isinstance(each, ExportError)}
    files = {name: File(each.model, kept=False) for name, each in made.items() if not isinstance(each, ExportError)}
    return Handout(version, digest, precisions, kept | files, failed)


def _jobs(
    model: GlobalModel, version: int, precisions: Sequence[str], hold_out: HoldOut | None, fleet: str | None
) -> list[ExportJob]:
    if fleet is None:
        raise HandoutError("no export tells the fleet's name, which its files carry: give --fleet")
    shown = hold_out or noise(model.network)
    return [exports.job(model, version, name, shown=shown, fleet=fleet) for name in precisions]


def _kept(session: Session, blobs: BlobReader, version: int, wanted: Collection[str]) -> dict[str, File]:
    """What the fleet made and still has; a damaged file counts as missing."""
    files = {}
    for row in session.scalars(select(Export).where(Export.version == version, Export.precision.in_(wanted))):
        try:
            files[row.precision] = File(blobs.get(row.digest), kept=True)
        except BlobError:
            continue
    return files


def _name(session: Session, blobs: BlobReader) -> str | None:
    """The fleet's name, as its newest export tells it."""
    for digest in session.scalars(select(Export.digest).order_by(Export.version.desc())):
        try:
            return read_metadata(parse(blobs.get(digest))).get("fleet")
        except (BlobError, ExportError):
            continue
    return None
