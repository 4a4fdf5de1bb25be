"""What stands around every page: name, ways to the others, who is signed in; and the door's keeper."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from fastapi.responses import RedirectResponse
from nicegui import ui
from nicegui.client import Client
from starlette.requests import Request

from aggregator.desk import Desk
from aggregator.page.live import Live, Read, Show, Visit
from aggregator.page.parts import box, link, say, skeleton
from aggregator.page.sessions import NOBODY, Sessions

NOTICES = {"primary": "#0a6e6e", "positive": "#0a6e6e", "negative": "#b3261e"}
"""Their words are white, on dark ground and on light."""
JOB_COOKIE = "bitfleet-job"
NAVIGATION = {
    "Overview": "/",
    "Devices": "/devices",
    "Rounds": "/rounds",
    "Learning": "/learning",
    "Models": "/models",
    "Actions": "/actions",
}


def _nothing(_: Visit) -> None:
    """Nothing above what changes."""


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        path: as FastAPI writes it.
        title: of the window, and at the head unless `head` draws its own.
        read: what to take out of the store.
        show: draws that.
        controls: draws what stays while the rest is drawn again.
        words: below the title.
    """

    path: str
    title: str
    read: Read
    show: Show
    controls: Callable[[Visit], None] = _nothing
    words: str = ""


def install(page: Page, desk: Desk, sessions: Sessions) -> None:
    """Have NiceGUI serve a page."""

    async def serve(request: Request, client: Client) -> RedirectResponse | None:
        if not sessions.may_look(request):
            return RedirectResponse(f"/login?next={quote(str(request.url.path))}")
        user = sessions.user(request)
        visit = Visit(_of_job(desk, request).serving(user.actor), request, client, user)
        ui.colors(**NOTICES)
        ui.add_head_html('<link rel="stylesheet" href="/style.css">')
        _top(visit, page)
        with box("main", "main").props("id=main"):
            name = next(iter(request.path_params.values()), "")
            with box("head"):
                with box():
                    say(f"{page.title} {name}".strip(), tag="h1")
                    if page.words:
                        say(page.words, "soft", "p")
                page.controls(visit)
            with box() as body:
                skeleton()
        Live(visit, body, page.read, page.show).begin(client)
        return None

    ui.page(page.path, title=f"{page.title} · {desk.room.topics.fleet}")(serve)


def _of_job(desk: Desk, request: Request) -> Desk:
    """The window of the job that the address names, or else of the one chosen last, or else of the main one."""
    for name in (request.query_params.get("job"), request.cookies.get(JOB_COOKIE)):
        if name in desk.room.rooms:
            return desk.of(str(name))
    return desk


def _jobs(visit: Visit) -> None:
    """A choice of jobs, where there are several; it is kept in a cookie."""
    room = visit.desk.room
    if len(room.rooms) < 2:
        return
    section = "/" + visit.request.url.path.split("/")[1]
    with box("field jobs", "label"):
        say("Job", "skip")
        with ui.element("select") as element:
            for name in room.rooms:
                item = say(name, tag="option")
                item.props["value"] = name
                if name == room.name:
                    item.props["selected"] = True
        element.on(
            "change",
            lambda event: ui.navigate.to(f"/job/{quote(str(event.args))}?next={quote(section)}"),
            js_handler="(e) => emit(e.target.value)",
        )


def _top(visit: Visit, page: Page) -> None:
    link("Skip to content", "#main", "skip")
    with box("top", "header"), box("top-in"):
        brand = link("", "/", "brand")
        with brand:
            with box("mark", "span"):
                for _ in range(4):
                    box(tag="i")
            say(visit.desk.room.topics.fleet)
        with box("nav", "nav").props('aria-label="Pages"'):
            for title, target in NAVIGATION.items():
                element = link(title, target)
                if page.path == target or (target != "/" and page.path.startswith(f"{target}/")):
                    element.props["aria-current"] = "page"
        _jobs(visit)
        if visit.user is NOBODY:
            link("Sign in", f"/login?next={quote(visit.request.url.path)}", "small")
        else:
            with box(tag="form").props("method=post action=/logout"):
                say("Sign out", "button bare", "button").props("type=submit")
