"""Updates on their way in: every check, in order, and one verdict for each.

    task, nonce, round, base → size → chunks → digest → header → decode → finite → norm → journal → receipt

(The envelope's own checks, topic, device, signature and replay, come before, in `handlers`.) A manifest that fails
is answered and the task stays open; an upload that fails is judged: its verdict is stored, and a manifest that comes
again gets the same one. An accepted update is a blob first, then a row, a task state and a receipt in one
transaction: killed anywhere in between, the device sends again and nothing is counted twice.
"""

from typing import Final

import numpy as np
from sqlalchemy.orm import Session

from aggregator import ledger, outbox, quarantine, refusals, staleness, versions
from aggregator.merge import MergeError, check_headroom
from aggregator.planning import codec_seed, offer_of
from aggregator.robust.clipping import whole_norm
from aggregator.room import Room
from aggregator.rounds import ACCEPTING
from aggregator.store import Device, Round, Task, TaskState, Update
from aggregator.uploads import Upload
from protocol.codec.payload import CodedPayload, Content, fp32_bytes, read, read_header
from protocol.codec.recipe import Recipe
from protocol.errors import Refusal, RemoteProtocolError
from protocol.messages import Manifest, Need, Outcome, Receipt
from protocol.precision import parse_several

JUDGED: Final = frozenset({TaskState.ACCEPTED, TaskState.REFUSED})
"""A task has a row in the journal if, and only if, it is in one of these."""
OVERHEAD_BYTES: Final = 4096
"""What a payload may have beyond four bytes a value: its header, and a range or scale for each tensor."""


def on_manifest(session: Session, room: Room, device: str, manifest: Manifest) -> None:
    """Take a manifest: answer with what is missing, or with the verdict there is.

    Raises:
        RemoteProtocolError: it does not belong to an open task of this device; the task is not touched.
    """
    task = _task_of(session, device, manifest)
    if _answer_again(session, room, task, manifest):
        return
    _require_open(session, room, task)
    _require_trusted(session, task.device)
    ledger.check(manifest)
    try:
        _check_size(room, task, manifest)
        upload = room.uploads.begin(device, manifest)
    except RemoteProtocolError as error:
        _refuse(session, room, task, manifest, error)
        return
    if upload is not None:
        task.state = TaskState.UPLOADING
        _ask(session, room, task, upload)


def on_chunk(room: Room, device: str, task: str, number: int, data: bytes) -> None:
    """Take a chunk; the last one brings the verdict. One that nobody announced is dropped: the device will ask.

    Raises:
        Malformed: no such chunk, or not the size it must have.
    """
    upload = room.uploads.of(device, task)
    if upload is None:
        return
    upload.assembly.add(number, data)
    if upload.assembly.complete:
        with room.store.transaction() as session:
            _finish(session, room, session.get_one(Task, task), upload)


def _task_of(session: Session, device: str, manifest: Manifest) -> Task:
    """The task a manifest belongs to, if its nonce, round and base say so."""
    task = session.get(Task, manifest.task)
    if task is None or task.device != device or task.nonce != manifest.nonce:
        raise RemoteProtocolError(
            f"task {manifest.task} with nonce {manifest.nonce.hex()} was not offered to {device}", Refusal.UNKNOWN_TASK
        )
    if manifest.round != task.round:
        raise RemoteProtocolError(
            f"update for round {manifest.round}: task {task.id} is of round {task.round}", Refusal.WRONG_ROUND
        )
    if manifest.base.hex() != task.base:
        raise RemoteProtocolError(
            f"update against base {manifest.base.hex()}: task {task.id} has base {task.base}", Refusal.WRONG_BASE
        )
    return task


def _answer_again(session: Session, room: Room, task: Task, manifest: Manifest) -> bool:
    """Repeat the verdict of a judged task."""
    if task.state not in JUDGED:
        return False
    session.flush()  # the verdict may be of this very transaction
    verdict = session.get(Update, task.id)
    if verdict is None:
        return False
    if verdict.digest != manifest.digest.hex():
        raise RemoteProtocolError(
            f"task {task.id} was judged by its payload {verdict.digest}, not {manifest.digest.hex()}", Refusal.LATE
        )
    _receipt(session, room, verdict)
    return True


def _require_open(session: Session, room: Room, task: Task) -> None:
    current = session.get_one(Round, task.round)
    late = current.state not in ACCEPTING
    if late and not staleness.still_counts(room, current, versions.current(session).version):
        raise RemoteProtocolError(f"round {current.number} is {current.state}: too late for an update", Refusal.LATE)
    if task.state is TaskState.DECLINED:
        raise RemoteProtocolError(f"task {task.id} was declined: {task.note}", Refusal.UNKNOWN_TASK)


def _require_trusted(session: Session, name: str) -> None:
    device = session.get_one(Device, name)
    if device.quarantined:
        raise RemoteProtocolError(f"device {name} is in quarantine: {device.quarantined}", Refusal.QUARANTINED)


def _check_size(room: Room, task: Task, manifest: Manifest) -> None:
    network = room.job.network
    values = sum(spec.size for spec in network.tensors(*parse_several(task.precision)))
    limit = 4 * values + OVERHEAD_BYTES
    if manifest.payload_bytes > limit:
        raise RemoteProtocolError(
            f"payload of {manifest.payload_bytes} bytes: {network.spec} needs at most {limit}", Refusal.TOO_LARGE
        )


def _ask(session: Session, room: Room, task: Task, upload: Upload) -> None:
    topic = room.topics.receipt(task.device, task.id)
    outbox.post(session, topic, Need(task.id, upload.assembly.missing))


# --- judging ---


def _finish(session: Session, room: Room, task: Task, upload: Upload) -> None:
    """Judge a complete upload, or ask again for one that arrived damaged."""
    try:
        data = upload.payload()
        if data is None:
            _ask(session, room, task, upload)
            return
        room.uploads.drop(task.device)
        _require_open(session, room, task)
        payload = _checked(room, task, upload.manifest, data)
    except RemoteProtocolError as error:
        room.uploads.drop(task.device)
        if error.refusal is Refusal.LATE:
            raise
        _refuse(session, room, task, upload.manifest, error)
    else:
        room.blobs.put(data)
        _accept(session, room, task, upload.manifest, payload)


def _checked(room: Room, task: Task, manifest: Manifest, data: bytes) -> CodedPayload:
    """Read an update that is what the task asked for, finite and of a size that can be merged."""
    header, _ = read_header(data)
    _require(header.architecture, room.job.architecture, "architecture", Refusal.WRONG_SHAPE)
    _require(header.precision, task.precision, "precision", Refusal.WRONG_PRECISION)
    _require(header.recipe, task.recipe, "recipe", Refusal.WRONG_RECIPE)
    _require(str(header.seed), str(codec_seed(room.job, task.round, task.recipe)), "seed", Refusal.WRONG_RECIPE)
    expected = Content.PROFILES if room.job.calibrates(task.round) else Content.DELTA
    _require(header.content.name.lower(), expected.name.lower(), "content", Refusal.MALFORMED)
    payload = read(data)
    _require_steps(task, payload)
    norm = whole_norm(payload)
    if not norm <= room.job.norm_limit:
        raise RemoteProtocolError(
            f"norm of the update is {norm:g}: expected at most {room.job.norm_limit:g}", Refusal.NORM
        )
    try:
        check_headroom(payload, manifest.samples)
    except MergeError as error:
        raise RemoteProtocolError(str(error), Refusal.NORM) from error
    return payload


def _require(found: str, expected: str, what: str, refusal: Refusal) -> None:
    if found != expected:
        raise RemoteProtocolError(f"update has {what} {found!r}: the offer said {expected!r}", refusal)


def _require_steps(task: Task, payload: CodedPayload) -> None:
    """That an update takes the steps that were announced: others would not add up to whole multiples of them."""
    steps = offer_of(task).codec_steps
    binding = Recipe.parse(task.recipe).takes_steps and payload.header.content is Content.DELTA
    if not steps or not binding:
        return
    for (name, coded), step in zip(payload.weights.items(), steps, strict=True):
        if coded.peak() != float(np.float32(step)):
            raise RemoteProtocolError(
                f"tensor {name} has step {coded.peak():g}: the offer announced {step:g}", Refusal.WRONG_RECIPE
            )


def _accept(session: Session, room: Room, task: Task, manifest: Manifest, payload: CodedPayload) -> None:
    verdict = _verdict(room, task, manifest)
    verdict.accepted, verdict.fp32_bytes = True, fp32_bytes(payload.header)
    verdict.norm = whole_norm(payload)
    task.state = TaskState.ACCEPTED
    session.add(verdict)
    ledger.book_update(session, room, task, manifest)
    _receipt(session, room, verdict)


def _refuse(session: Session, room: Room, task: Task, manifest: Manifest, error: RemoteProtocolError) -> None:
    verdict = _verdict(room, task, manifest)
    verdict.accepted, verdict.refusal, verdict.reason = False, error.refusal.value, str(error)[:400]
    task.state, task.note = TaskState.REFUSED, verdict.reason
    session.add(verdict)
    ledger.book_update(session, room, task, manifest)
    refusals.count(session, task.device, error.refusal)
    _receipt(session, room, verdict)
    quarantine.judge(session, room, session.get_one(Device, task.device))


def _verdict(room: Room, task: Task, manifest: Manifest) -> Update:
    return Update(
        task=task.id,
        round=task.round,
        device=task.device,
        refusal="",
        reason="",
        digest=manifest.digest.hex(),
        payload_bytes=manifest.payload_bytes,
        samples=manifest.samples,
        loss=manifest.loss,
        accuracy=manifest.accuracy,
        train_s=manifest.train_s,
        energy_mj=manifest.energy_mj,
        energy_source=manifest.energy_source.value,
        received_at=room.clock(),
    )


def _receipt(session: Session, room: Room, verdict: Update) -> None:
    outcome = Outcome.ACCEPTED if verdict.accepted else Outcome.REFUSED
    digest = bytes.fromhex(verdict.digest)
    receipt = Receipt(verdict.task, verdict.round, digest, outcome, verdict.refusal, verdict.reason)
    outbox.post(session, room.topics.receipt(verdict.device, verdict.task), receipt)
