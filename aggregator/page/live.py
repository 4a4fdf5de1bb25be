"""A part of a page that is read, drawn, and drawn again when something has changed: at most once a second."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from nicegui import background_tasks
from nicegui.client import Client
from nicegui.element import Element
from starlette.requests import Request

from aggregator.desk import Desk
from aggregator.feed import HELLO
from aggregator.page import parts
from aggregator.page.sessions import User
from aggregator.store import JobSession

CALM_S: Final = 1.0
CONNECTS_WITHIN_S: Final = 60.0

log = logging.getLogger("bitfleet.aggregator")


class Missing(Exception):
    """What a page is asked to show does not exist; the message says what."""


@dataclass
class Visit:
    """One opened page: who looks, at what, and what was chosen on it."""

    desk: Desk
    request: Request
    client: Client
    user: User
    chosen: dict[str, Any] = field(default_factory=dict)
    refresh: Callable[[], object] = lambda: None

    def reading(self, read: "Read") -> Any:
        """What `read` takes out of the store."""
        with self.desk.room.store.reading() as session:
            return read(session, self)

    def shown(self, step: int) -> int:
        """How much of a list is shown: a step of it, and another each time that more is asked for."""
        count: int = self.chosen.get("shown", step)
        return count

    def show_more(self, step: int) -> None:
        """Show another step of the list."""
        self.chosen["shown"] = self.shown(step) + step
        self.refresh()

    @property
    def now(self) -> float:
        """The aggregator's clock."""
        return self.desk.room.clock()


Read = Callable[[JobSession, Visit], Any]
Show = Callable[[Visit, Any], None]


class Live:
    """Keeps `body` showing what `read` finds.

    Args:
        visit: the opened page.
        body: where to draw.
        read: runs in a thread of its own, so that a slow disk holds up nobody else.
        show: draws.
    """

    def __init__(self, visit: Visit, body: Element, read: Read, show: Show) -> None:
        self._visit, self._body, self._read, self._show = visit, body, read, show
        self._shown: Any = None
        visit.refresh = self.again

    def begin(self, client: Client) -> None:
        """Draw once the browser is connected, and go on until it leaves."""
        task = background_tasks.create(self._follow(client), name="page")
        client.on_delete(task.cancel)

    def again(self) -> None:
        """Draw again now."""
        background_tasks.create(self._draw(), name="page again")

    async def _follow(self, client: Client) -> None:
        try:
            await client.connected(timeout=CONNECTS_WITHIN_S)
        except TimeoutError:
            return  # whoever fetched the page was no browser
        behind = True
        while behind:
            with self._visit.desk.feed.listening() as listener:
                async for item in listener:
                    if item.change.kind != HELLO:
                        await asyncio.sleep(CALM_S)
                        listener.forget()
                    await self._draw()
                behind = listener.behind

    async def _draw(self) -> None:
        try:
            found = await asyncio.to_thread(self._visit.reading, self._read)
        except Missing as error:
            self._fill(partial(parts.empty, "Not found", str(error)))
        except Exception as error:  # noqa: BLE001 (the page says it, and can be asked again)
            log.error("the page %s cannot be shown: %s", self._visit.request.url.path, error)  # noqa: TRY400
            self._fill(partial(parts.wrong, "This cannot be shown now", _why(error), self.again))
        else:
            if found != self._shown:
                self._fill(lambda: self._show(self._visit, found))
                self._shown = found

    def _fill(self, draw: Callable[[], object]) -> None:
        if self._body.is_deleted:
            return
        self._shown = None
        self._body.clear()
        with self._body:
            draw()


def _why(error: Exception) -> str:
    return f"The aggregator could not read its database ({type(error).__name__}). Its log says more."
