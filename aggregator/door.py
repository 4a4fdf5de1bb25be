"""Who stands at the HTTP door, and whether they may do what they ask for."""

from http import HTTPStatus
from math import ceil
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Query, Request

from aggregator.desk import Desk
from aggregator.roles import LEAST, NOBODY, Actor, Role
from aggregator.store import MAIN
from aggregator.views import DEVICE


def the_desk(request: Request) -> Desk:
    """The window this application serves, for whoever stands there."""
    desk: Desk = request.app.state.desk
    return desk.serving(getattr(request.state, "actor", NOBODY))


def desk_of_job(
    request: Request, job: Annotated[str, Query(pattern=DEVICE, description="where the fleet has several")] = MAIN
) -> Desk:
    """The window of one job."""
    try:
        return the_desk(request).of(job)
    except KeyError:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"job {job!r} is not known") from None


TheDesk = Annotated[Desk, Depends(the_desk)]
JobDesk = Annotated[Desk, Depends(desk_of_job)]
Bearer = Annotated[str, Header(alias="Authorization", include_in_schema=False)]


def authorized(request: Request, authorization: Bearer = "") -> None:
    """Refuse whoever has not the least role of the route (`roles.LEAST`); looking is free where reads are open."""
    desk: Desk = request.app.state.desk
    least = LEAST.get(request.scope["route"].name, Role.ADMIN)
    actor = _known(desk, request.client.host if request.client else "", authorization)
    request.state.actor = actor
    if actor.may(least) or (least is Role.VIEWER and desk.reads_freely(request.url.hostname or "")):
        return
    if actor is NOBODY:
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "expected header 'Authorization: Bearer …' with the token of the file admin-token in the state directory,"
            " or of a user (bitfleet-aggregator user add)",
            {"WWW-Authenticate": "Bearer"},
        )
    raise HTTPException(HTTPStatus.FORBIDDEN, f"{actor.name} is {actor.role}: this is for {least}s")


def _known(desk: Desk, address: str, authorization: str) -> Actor:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return NOBODY
    wait_s = desk.throttle.wait_s(address)
    if wait_s:
        raise HTTPException(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"too many wrong tokens from {address}: try again in {ceil(wait_s)} s",
            {"Retry-After": str(ceil(wait_s))},
        )
    actor = desk.known(token.strip())
    if actor is NOBODY:
        desk.throttle.wrong(address)
    return actor
