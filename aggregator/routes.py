"""The HTTP door: a translation of requests into reads of the store and commands of `handlers`. No rule lives here.

Who may do what says `roles.LEAST`. Reads are open to this machine and ask for a token when the door is open to others;
joining shows a join token, or a proof, in its body. Blobs never ask: their names are SHA-256 of their content, which
nobody can guess, and only signed offers and readers of this door ever say one.
"""

import base64
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client.exposition import choose_encoder

from aggregator import handlers, joining, readers, summaries, views
from aggregator.blobs import BlobError
from aggregator.desk import Desk
from aggregator.door import JobDesk, TheDesk, authorized
from aggregator.pager import PAGED, NewestFirst, ThePager
from aggregator.problems import documented
from aggregator.store import Fact

T = TypeVar("T")

API = "/api/v1"
READY_WITHIN_S = 5.0
ROUND_LIMIT = (1 << 31) - 1


BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""What may be wrong with a body before anybody looks at what it says."""
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
COMMAND_PROBLEMS = (*BODY, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)

open_to_all = APIRouter()
figures = APIRouter(dependencies=[Depends(authorized)], responses=documented(*REFUSED))
reading = APIRouter(
    prefix=API,
    dependencies=[Depends(authorized)],
    responses=documented(*REFUSED, HTTPStatus.UNPROCESSABLE_ENTITY),
)
writing = APIRouter(
    prefix=API,
    dependencies=[Depends(authorized)],
    responses=documented(*REFUSED, *COMMAND_PROBLEMS),
)
WAITS: dict[int | str, dict[str, Any]] = {
    202: {"model": views.JoinAnswer, "description": "an operator has to approve the device; ask again"}
}
MISSING = documented(HTTPStatus.NOT_FOUND)

DeviceName = Annotated[str, Path(pattern=views.DEVICE)]
Number = Annotated[int, Path(ge=0, le=ROUND_LIMIT)]
OfRound = Annotated[int | None, Query(alias="round", ge=0, le=ROUND_LIMIT)]
OfDevice = Annotated[str | None, Query(pattern=views.DEVICE)]


def _found(value: T | None, what: str) -> T:
    if value is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"{what} is not known")
    return value


@open_to_all.get("/healthz")
def healthz() -> views.Health:
    """Whether the process answers."""
    return views.Health(status="ok")


@open_to_all.get("/readyz", responses={503: {"model": views.Ready}})
def readyz(desk: TheDesk, response: Response) -> views.Ready:
    """Whether the broker is connected and the database takes writes."""
    broker, database = desk.connected(), _writable(desk)
    if not (broker and database):
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return views.Ready(ready=broker and database, broker=broker, database=database)


def _writable(desk: Desk) -> bool:
    def write() -> None:
        with desk.room.store.transaction() as session:
            session.merge(Fact(name="checked_at", value=str(desk.room.clock()).encode()))

    try:
        desk.submit(write, READY_WITHIN_S)
    except Exception:  # noqa: BLE001 (whatever stands in the way: not ready is the answer)
        return False
    return True


@figures.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(desk: TheDesk, accept: Annotated[str, Header()] = "") -> Response:
    """Figures for Prometheus, in its text format or as OpenMetrics."""
    encode, content_type = choose_encoder(accept)
    return Response(encode(desk.registry), headers={"Content-Type": content_type})


@open_to_all.post(
    f"{API}/join",
    status_code=HTTPStatus.CREATED,
    response_model_exclude_defaults=True,
    responses=WAITS | documented(HTTPStatus.FORBIDDEN, *COMMAND_PROBLEMS),
)
def join(desk: TheDesk, body: views.JoinRequest, request: Request, response: Response) -> views.JoinAnswer:
    """Make a device a member of the fleet, for a join token, or give a member its next certificate."""
    result = desk.submit(
        partial(
            joining.join,
            desk.room,
            device=body.device,
            public_key=bytes.fromhex(body.public_key),
            token=body.token,
            request=base64.b64decode(body.request),
            proof=bytes.fromhex(body.proof),
        )
    )
    if result.waits:
        response.status_code = HTTPStatus.ACCEPTED
    return views.JoinAnswer(
        fleet=result.fleet,
        server_key=result.server_key.hex(),
        broker=desk.broker_for(request.url.hostname or ""),
        ca=desk.room.keyring.authority.pem if desk.room.keyring else "",
        certificate=result.certificate,
        broker_trust=desk.broker_trust,
    )


@open_to_all.get(f"{API}/ca", response_class=PlainTextResponse, responses=MISSING)
def authority(desk: TheDesk) -> str:
    """The certificate of the fleet's authority; whoever reads it compares it with a fingerprint from elsewhere."""
    if desk.room.keyring is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "this fleet has no authority: it runs without TLS")
    return desk.room.keyring.authority.pem


@open_to_all.head(f"{API}/blobs/{{digest}}", include_in_schema=False)
@open_to_all.get(
    f"{API}/blobs/{{digest}}",
    response_class=FileResponse,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "the range asked for"},
        304: {"description": "the client has it"},
        **MISSING,
    },
)
def blob(desk: TheDesk, digest: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    """A model or update by the SHA-256 of its content; ranges and ETag are understood."""
    try:
        path = desk.room.blobs.path(digest)
    except BlobError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error
    if not path.is_file():
        raise HTTPException(HTTPStatus.NOT_FOUND, f"blob {digest} is not known")
    etag = f'"{digest}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if if_none_match.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@reading.get("/jobs")
def jobs(desk: TheDesk) -> list[views.JobView]:
    """What the fleet is asked to learn, the main job first."""
    return [readers.job_view(room) for room in desk.room.rooms.values()]


@reading.get("/status", responses=MISSING)
def status(desk: JobDesk, request: Request) -> views.StatusView:
    """Where the fleet stands, cheap enough to ask every second."""
    with desk.room.store.reading() as session:
        return summaries.status(session, desk.room, desk.broker_for(request.url.hostname or ""))


@reading.get("/summary", responses=MISSING)
def summary(desk: JobDesk) -> views.SummaryView:
    """Devices by state and precision, bytes against 32-bit floats, and joules."""
    with desk.room.store.reading() as session:
        return summaries.summary(session)


@reading.get("/learning", responses=MISSING)
def learning(desk: JobDesk) -> list[views.LearningPoint]:
    """Accuracy of every rated model, against bits, bytes and joules."""
    with desk.room.store.reading() as session:
        return summaries.learning(session)


@reading.get("/devices", responses=PAGED)
def devices(
    desk: TheDesk,
    pager: ThePager,
    name: Annotated[str, Query(max_length=64, description="a part of it")] = "",
    status: Annotated[str, Query(pattern="^(online|offline|revoked|)$")] = "",
    precision: Annotated[str, Query(max_length=16)] = "",
    group: Annotated[str, Query(max_length=64)] = "",
    job: Annotated[str, Query(max_length=64)] = "",
) -> list[views.DeviceView]:
    """Devices by name, all or those that are meant, in pages."""
    only = readers.DeviceFilter(name, status, precision, group, job)
    with desk.room.store.reading() as session:
        return pager.show(readers.device_views(session, pager.window, only))


@reading.get("/devices/{name}", responses=MISSING)
def device(desk: TheDesk, name: DeviceName) -> views.DeviceDetail:
    """One device: its precision and why, its bytes, its receipts."""
    with desk.room.store.reading() as session:
        return _found(readers.device_detail(session, name, desk.room.clock()), f"device {name!r}")


@reading.get("/rounds", responses=PAGED | MISSING)
def rounds(desk: JobDesk, pager: ThePager, *, newest_first: NewestFirst = False) -> list[views.RoundView]:
    """Rounds, in pages."""
    with desk.room.store.reading() as session:
        return pager.show(readers.round_views(session, pager.window, newest_first=newest_first))


@reading.get("/rounds/{number}", responses=MISSING)
def one_round(desk: JobDesk, number: Number) -> views.RoundDetail:
    """One round with its offers."""
    with desk.room.store.reading() as session:
        return _found(readers.round_detail(session, number), f"round {number}")


@reading.get("/updates", responses=PAGED | MISSING)
def updates(
    desk: JobDesk,
    pager: ThePager,
    number: OfRound = None,
    device: OfDevice = None,
    *,
    newest_first: NewestFirst = False,
) -> list[views.UpdateView]:
    """Judged updates, of one round, of one device, or all, in pages."""
    with desk.room.store.reading() as session:
        return pager.show(readers.update_views(session, number, device, pager.window, newest_first=newest_first))


@reading.get("/updates/{task}", responses=MISSING)
def update(desk: TheDesk, task: str) -> views.UpdateView:
    """One judged update."""
    with desk.room.store.of(None).reading() as session:
        return _found(readers.update_view(session, task), f"update {task!r}")


@reading.get("/energy", responses=PAGED | MISSING)
def energy(desk: JobDesk, pager: ThePager, number: OfRound = None, device: OfDevice = None) -> views.EnergyView:
    """The ledger of joules, of one round, of one device, or all: entries in pages, sums of all pages."""
    with desk.room.store.reading() as session:
        view, page = readers.energy_view(session, number, device, pager.window)
    pager.show(page)
    return view


@reading.get("/models", responses=PAGED | MISSING)
def models(desk: JobDesk, pager: ThePager) -> list[views.ModelView]:
    """Versions of the model, newest first, in pages."""
    with desk.room.store.reading() as session:
        return pager.show(readers.model_views(session, pager.window))


@reading.get("/models/{version}", responses=MISSING)
def model(desk: JobDesk, version: Number) -> views.ModelView:
    """One version with its exports."""
    with desk.room.store.reading() as session:
        return _found(readers.model_view(session, version), f"model version {version}")


@reading.get("/events", response_class=EventSourceResponse)
async def events(
    desk: TheDesk, last_event_id: Annotated[str, Header(max_length=64)] = ""
) -> AsyncIterator[ServerSentEvent]:
    """What changes, as it does: round, task, device, update, model, export and fleet, each with what it is now.

    Whoever comes back with Last-Event-ID goes on from there; `reset` says that something was missed and all that is
    shown should be read anew. A reader that falls far behind is sent away.
    """
    with desk.feed.listening(last_event_id) as listener:
        async for item in listener:
            yield ServerSentEvent(data=item.change.facts, event=item.change.kind, id=item.id)


@writing.put("/devices/{name}/budget", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def set_budget(desk: TheDesk, name: DeviceName, body: views.BudgetRequest) -> None:
    """Give a device an energy budget; it takes effect when precisions are chosen next."""
    desk.command(handlers.set_budget, name, body.joules_per_day)


@writing.post("/devices/{name}/revoke", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def revoke(desk: TheDesk, name: DeviceName) -> None:
    """Shut a device out for good."""
    desk.command(handlers.revoke, name)


@writing.post("/devices/{name}/quarantine", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def shut_out(desk: TheDesk, name: DeviceName, body: views.QuarantineRequest) -> None:
    """Ask a device no more until it is released; it keeps its model."""
    desk.command(handlers.shut_out, name, body.reason)


@writing.post("/devices/{name}/release", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def release(desk: TheDesk, name: DeviceName) -> None:
    """Ask a device again; what it did before counts no more."""
    desk.command(handlers.release, name)


@writing.post("/rounds/abort", responses=MISSING)
def abort(desk: JobDesk) -> views.RoundAnswer:
    """Give up the current round."""
    return views.RoundAnswer(round=desk.command(handlers.abort_round))


@writing.post("/models/{version}/restore", responses=MISSING)
def restore(desk: JobDesk, version: Number) -> views.RoundAnswer:
    """Make an older version of the model the current one."""
    return views.RoundAnswer(round=desk.command(handlers.go_back, version))


@writing.post("/rounds/pause", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def pause(desk: JobDesk) -> None:
    """Open no further round."""
    desk.command(handlers.pause)


@writing.post("/rounds/resume", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def resume(desk: JobDesk) -> None:
    """Open rounds again."""
    desk.command(handlers.resume)
