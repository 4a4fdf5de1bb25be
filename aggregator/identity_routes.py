"""The HTTP door's part about who belongs to the fleet and who may steer it. As in `routes`, no rule lives here."""

from http import HTTPStatus

from fastapi import APIRouter, Depends

from aggregator import handlers, joining, readers, users, views
from aggregator.door import TheDesk, authorized
from aggregator.pager import PAGED, NewestFirst, ThePager
from aggregator.problems import documented
from aggregator.routes import API, COMMAND_PROBLEMS, MISSING, REFUSED, DeviceName

identity = APIRouter(
    prefix=API,
    dependencies=[Depends(authorized)],
    responses=documented(*REFUSED, *COMMAND_PROBLEMS),
)


@identity.post("/tokens", status_code=HTTPStatus.CREATED)
def create_token(desk: TheDesk, body: views.TokenRequest) -> views.TokenAnswer:
    """Make a join token."""
    return views.TokenAnswer(token=desk.command(joining.create_token, body.uses, body.ttl_s, body.note, body.group))


@identity.get("/tokens")
def tokens(desk: TheDesk) -> list[views.TokenView]:
    """Join tokens that still let somebody in; their secrets are not kept."""
    with desk.room.store.reading() as session:
        return readers.token_views(session, desk.room.clock())


@identity.delete("/tokens/{token}", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def revoke_token(desk: TheDesk, token: str) -> None:
    """Forget a join token; who has joined with it stays."""
    desk.command(joining.revoke_token, token)


@identity.get("/applicants")
def applicants(desk: TheDesk) -> list[views.ApplicantView]:
    """Devices that wait for approval, or were rejected."""
    with desk.room.store.reading() as session:
        return readers.applicant_views(session)


@identity.post("/applicants/{name}/approve", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def approve(desk: TheDesk, name: DeviceName) -> None:
    """Take in a device that waits."""
    desk.command(joining.approve, name)


@identity.post("/applicants/{name}/reject", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def reject(desk: TheDesk, name: DeviceName) -> None:
    """Turn away a device that waits."""
    desk.command(joining.reject, name)


@identity.put("/devices/{name}/group", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def set_group(desk: TheDesk, name: DeviceName, body: views.GroupRequest) -> None:
    """Move a device into a group; an empty one takes it out of any."""
    desk.command(handlers.set_group, name, body.group)


@identity.post("/users", status_code=HTTPStatus.CREATED)
def add_user(desk: TheDesk, body: views.UserRequest) -> views.TokenAnswer:
    """Give somebody a token with a role."""
    return views.TokenAnswer(token=desk.command(users.add_user, body.name, body.role))


@identity.get("/users")
def list_users(desk: TheDesk) -> list[views.UserView]:
    """Who has a token."""
    with desk.room.store.reading() as session:
        return readers.user_views(session)


@identity.delete("/users/{name}", status_code=HTTPStatus.NO_CONTENT, responses=MISSING)
def remove_user(desk: TheDesk, name: DeviceName) -> None:
    """Shut somebody out."""
    desk.command(users.remove_user, name)


@identity.get("/audit", responses=PAGED)
def audit_log(desk: TheDesk, pager: ThePager, *, newest_first: NewestFirst = False) -> list[views.AuditView]:
    """Who commanded what, in pages."""
    with desk.room.store.reading() as session:
        return pager.show(readers.audit_views(session, pager.window, newest_first=newest_first))
