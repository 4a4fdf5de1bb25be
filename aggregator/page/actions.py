"""What an operator can do to the whole fleet."""

from collections.abc import Callable
from dataclasses import dataclass

from aggregator import readers
from aggregator.page import words
from aggregator.page.asking import ask_abort, ask_pause, ask_resume, ask_token
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.parts import Column, box, button, card, link, say, table
from aggregator.store import JobSession
from aggregator.views import TokenView


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    paused: bool
    tokens: list[TokenView]


def read(session: JobSession, visit: Visit) -> Seen:
    """Whether rounds are paused, and which tokens are good."""
    return Seen(readers.is_paused(session), readers.token_views(session, visit.now))


def show(visit: Visit, seen: Seen) -> None:
    """Draw it."""
    with box("stack"):
        with card("Rounds", classes="flush"):
            if seen.paused:
                _action("Resume rounds", "Rounds are paused. Open them again.", "Resume", lambda: ask_resume(visit))
            else:
                _action(
                    "Pause rounds", "Open no further round; the current one goes on.", "Pause", lambda: ask_pause(visit)
                )
            words_ = "Give it up; the model stays as it is."
            _action("Abort the current round", words_, "Abort", lambda: ask_abort(visit), "danger")
        with card("Devices", classes="flush"):
            _action(
                "Let a device join", "Make a token for one device.", "Make token", lambda: ask_token(visit), "main-one"
            )
            with box("action"):
                say("Budgets are changed, and devices revoked, on each device's own page.", "soft")
                link("Devices", "/devices")
        if seen.tokens:
            _tokens(seen.tokens, visit.now)


def _action(title: str, what: str, do: str, act: Callable[[], object], classes: str = "") -> None:
    with box("action"):
        with box():
            say(title, tag="h2")
            say(what, "soft", "p")
        button(do, act, classes)


def _tokens(tokens: list[TokenView], now: float) -> None:
    columns = [
        Column("Token"),
        Column("Note", wide=True),
        Column("Uses left", number=True),
        Column("Expires in", number=True),
    ]
    with card("Join tokens that are still good", classes="flush"):
        rows = [
            [token.name, token.note or words.NOTHING, str(token.uses_left), words.seconds(token.expires_at - now)]
            for token in tokens
        ]
        table(columns, rows)


PAGE = Page("/actions", "Actions", read, show, words="Each is asked back about before it is done.")
