"""ONNX files of a model version: checked before they are kept, offered to the devices that should run them."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator import devices, outbox, versions
from aggregator.model import GlobalModel
from aggregator.room import HoldOut, Room
from aggregator.store import Device, Export
from export.batch import ExportJob
from export.errors import ExportError
from protocol.messages import ModelOffer
from protocol.precision import Precision


@dataclass(frozen=True, slots=True)
class Kept:
    """An ONNX file that agrees with the integer reference and lies among the blobs."""

    precision: str
    digest: str
    model_bytes: int
    accuracy: float | None
    pictures: int


def job(model: GlobalModel, version: int, precision: str, *, shown: HoldOut, fleet: str) -> ExportJob:
    """How a version is exported at one precision: the same arguments give the same file, whoever makes it.

    Args:
        model: the version's tensors.
        version: its number.
        precision: one that the model was trained at.
        shown: pictures that it is checked and, with labels, rated on.
        fleet: the fleet's name.
    """
    parsed = Precision.parse(precision)
    metadata = {"round": str(version), "fleet": fleet, "moments": f"pooled at {precision}"}
    return ExportJob(
        model.network, parsed, model.tensors(parsed), shown.pictures_NCHW, shown.labels_N, metadata=metadata
    )


def keep(room: Room, model: GlobalModel, version: int, precision: str) -> Kept:
    """Export a model at one precision, check it and keep it.

    Raises:
        ExportError: it differs from the reference, or cannot be exported; nothing was kept.
    """
    with room.timed("export"):
        export = job(model, version, precision, shown=room.check_set, fleet=room.topics.fleet).make()
    digest = room.blobs.put(export.model)
    return Kept(precision, digest, len(export.model), export.accuracy, export.report.pictures)


def register(session: Session, version: int, kept: Iterable[Kept]) -> list[Export]:
    """Write exports into the tables; whoever holds the rows asks for none of them again."""
    rows = [
        Export(
            version=version,
            precision=item.precision,
            digest=item.digest,
            model_bytes=item.model_bytes,
            accuracy=item.accuracy,
            pictures=item.pictures,
        )
        for item in kept
    ]
    session.add_all(rows)
    session.flush()
    return rows


def kept_of(session: Session, version: int) -> list[Kept]:
    """The exports of a version, by precision."""
    names = ("precision", "digest", "model_bytes", "accuracy", "pictures")
    rows = session.scalars(select(Export).where(Export.version == version).order_by(Export.precision))
    return [Kept(**{name: getattr(row, name) for name in names}) for row in rows]


def offer_model(session: Session, room: Room, device: Device, *, round: int | None = None) -> None:  # noqa: A002
    """Tell a device which model it should run, unless it does, or there is none yet for its precision."""
    version = versions.current(session).version
    offer_version(session, room, device, version, round=round)


def offer_version(session: Session, room: Room, device: Device, version: int, *, round: int | None = None) -> None:  # noqa: A002
    """The same for a version that is known to be the newest."""
    export = session.get(Export, (version, device.precision))
    if export is None or device.birth["model_digest"] == export.digest:
        return
    message = ModelOffer(
        version=version,
        architecture=room.job.architecture,
        precision=export.precision,
        digest=bytes.fromhex(export.digest),
        model_bytes=export.model_bytes,
        reason=device.reason[:400],
    )
    outbox.post(session, room.topics.device(device.id, "offer"), message, round=round)


def keep_missing(room: Room) -> bool:
    """Export the newest version for a precision that came into use after it was committed.

    Returns:
        Whether there was one.

    Raises:
        ExportError: it differs from the reference; this precision is not tried again before a restart.
    """
    with room.store.reading() as session:
        model = versions.current(session)
        kept = session.scalars(select(Export.precision).where(Export.version == model.version))
        in_use = devices.precisions_in_use(session) & set(model.precisions)
        missing = in_use - set(kept)
    names = sorted(name for name in missing if (model.version, name) not in room.unexportable)
    if not names:
        return False
    try:
        export = keep(room, versions.load(room, model), model.version, names[0])
    except ExportError:
        room.unexportable.add((model.version, names[0]))
        raise
    with room.store.transaction() as session:
        register(session, model.version, [export])
        for device in devices.members(session):
            if device.precision == export.precision:
                offer_version(session, room, device, model.version)
    return True
