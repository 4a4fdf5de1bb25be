"""The page mounted on the application that serves the API: NiceGUI, its style, signing in and out."""

from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Form, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from nicegui import ui
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from aggregator import problems
from aggregator.desk import Desk
from aggregator.page import actions, device, devices, frame, learning, models, overview, round_, rounds
from aggregator.page.login import login_page
from aggregator.page.sessions import COOKIE, LIVES_S, Sessions

STYLE: Final = Path(__file__).with_name("style.css")
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><g fill="#0a6e6e">'
    '<rect x="1" y="1" width="6" height="6" rx="1.5"/><rect x="9" y="1" width="6" height="6" rx="1.5" opacity=".4"/>'
    '<rect x="1" y="9" width="6" height="6" rx="1.5" opacity=".65"/><rect x="9" y="9" width="6" height="6" rx="1.5"/>'
    "</g></svg>"
)
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PAGES: Final = (
    overview.PAGE,
    devices.PAGE,
    device.PAGE,
    rounds.PAGE,
    round_.PAGE,
    learning.PAGE,
    models.PAGE,
    actions.PAGE,
)


def install(app: FastAPI, desk: Desk) -> None:
    """Serve the page beside the API; once in a process, because NiceGUI is one application.

    Args:
        app: the application that has the API's routes already.
        desk: what is shown.
    """
    sessions = Sessions(desk)
    app.include_router(_doors(sessions))
    app.add_api_route("/api/{rest:path}", _no_such_path, include_in_schema=False, methods=list(METHODS))
    for page in PAGES:
        frame.install(page, desk, sessions)
    app.add_middleware(SameOrigin)
    ui.run_with(app, title=desk.room.topics.fleet, favicon=ICON, dark=None, tailwind=False, show_welcome_message=False)


def _no_such_path(rest: str) -> Response:
    return problems.problem(HTTPStatus.NOT_FOUND, f"/api/{rest} is not known; /openapi.json describes what is")


def _doors(sessions: Sessions) -> APIRouter:
    """Style, signing in and signing out."""
    router = APIRouter(include_in_schema=False)

    @router.get("/style.css")
    def style() -> FileResponse:
        return FileResponse(STYLE, headers={"Cache-Control": "no-cache"})

    @router.get("/login")
    def login(next: str = "/") -> HTMLResponse:  # noqa: A002 (the query's word)
        return HTMLResponse(login_page(next))

    @router.post("/login")
    def sign_in(
        request: Request,
        token: Annotated[str, Form(max_length=200)],
        next: Annotated[str, Form(max_length=400)] = "/",  # noqa: A002
    ) -> Response:
        address = request.client.host if request.client else ""
        if sessions.must_wait(address):
            return HTMLResponse(login_page(next, "Too many wrong tokens: wait a minute."), HTTPStatus.TOO_MANY_REQUESTS)
        cookie = sessions.begin(token, address)
        if cookie is None:
            return HTMLResponse(login_page(next, "That is not the token."), HTTPStatus.FORBIDDEN)
        answer = RedirectResponse(_within(next), HTTPStatus.SEE_OTHER)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, max_age=LIVES_S, httponly=True, samesite="strict", secure=secure)
        return answer

    @router.get("/job/{name}")
    def choose_job(name: str, next: str = "/") -> Response:  # noqa: A002
        answer = RedirectResponse(_within(next), HTTPStatus.SEE_OTHER)
        answer.set_cookie(frame.JOB_COOKIE, name, httponly=True, samesite="lax")
        return answer

    @router.post("/logout")
    def sign_out(request: Request) -> Response:
        sessions.end(request)
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE)
        return answer

    return router


def _within(target: str) -> str:
    """A path of this page, whatever was asked for: nobody is led elsewhere after signing in."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"


class SameOrigin:
    """Refuses what another site's page sends: forms and web sockets name their origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in {"http", "websocket"}:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                await self._refuse(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            words = "another site's page asked for this; expected an Origin that is this host"
            await problems.problem(HTTPStatus.FORBIDDEN, words)(scope, receive, send)
