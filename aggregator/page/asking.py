"""What the page can change, each asked back about, done by the same commands as the API's, and answered with a word."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from nicegui import ui

from aggregator import handlers, joining
from aggregator.coordinator import Busy
from aggregator.devices import MAINS_J_PER_DAY
from aggregator.faults import CommandRefused, Fault
from aggregator.page.live import Visit
from aggregator.page.parts import box, button, command, say
from aggregator.page.sessions import NOBODY
from aggregator.roles import Role

HOUR_S: Final = 3600.0


def confirm(
    visit: Visit,
    title: str,
    words: str,
    do: str,
    act: Callable[[], Any],
    done: Callable[[Any], str],
    *,
    danger: bool = False,
    least: Role = Role.OPERATOR,
) -> None:
    """Ask, then act.

    Args:
        visit: who does it, and where.
        title: the question.
        words: what will follow from it.
        do: the word on the button.
        act: does it; runs in a thread of its own.
        done: what to say then, of what `act` returned.
        danger: whether it cannot be undone.
        least: the role that it takes.
    """
    if not _may(visit, least):
        return
    with _sheet(title, words) as dialog, box("row"):
        button("Cancel", dialog.close)

        async def go() -> None:
            dialog.close()
            with visit.client:  # the dialog is gone by then
                if (answer := await attempt(act)) is not None:
                    ui.notify(done(answer.value), type="positive", position="bottom")
                    visit.refresh()

        button(do, go, "danger main-one" if danger else "main-one")
    dialog.open()


def _may(visit: Visit, least: Role) -> bool:
    """Whether whoever looks may do it; strangers are led to the door, others told what is missing."""
    if visit.user is NOBODY:
        ui.navigate.to(f"/login?next={quote(visit.request.url.path)}")
    elif not visit.user.may(least):
        ui.notify(f"This is for {least}s; you are {visit.user.actor.role}", type="negative", position="bottom")
    return visit.user.may(least)


class _sheet:  # noqa: N801 (used as a word)
    """A dialog with a title; closes for good when it is closed."""

    def __init__(self, title: str, words: str) -> None:
        self._title, self._words = title, words

    def __enter__(self) -> ui.dialog:
        self.dialog = ui.dialog()
        self.dialog.on_value_change(lambda event: None if event.value else self.dialog.delete())
        self._in = self.dialog.__enter__()
        self._sheet = box("sheet")
        self._sheet.__enter__()
        say(self._title, tag="h2")
        say(self._words, "soft", "p")
        return self.dialog

    def __exit__(self, *_: object) -> None:
        self._sheet.__exit__(None, None, None)
        self.dialog.__exit__(None, None, None)


class Answer:
    """What a command returned."""

    def __init__(self, value: Any) -> None:
        self.value = value


async def attempt(act: Callable[[], Any]) -> Answer | None:
    """Act in a thread; what was refused or failed is said, and gives None."""
    try:
        return Answer(await asyncio.to_thread(act))
    except (CommandRefused, Busy) as error:
        ui.notify(str(error), type="negative", position="bottom", timeout=8000)
    except Exception as error:  # noqa: BLE001 (said to whoever pressed the button)
        ui.notify(f"That failed ({type(error).__name__}); the log says more", type="negative", position="bottom")
    return None


def ask_pause(visit: Visit) -> None:
    """Open no further round."""
    confirm(
        visit,
        "Pause rounds?",
        "The current round goes on to its end; no other is opened.",
        "Pause",
        lambda: visit.desk.command(handlers.pause),
        lambda _: "Rounds are paused",
    )


def ask_resume(visit: Visit) -> None:
    """Open rounds again."""
    confirm(
        visit,
        "Resume rounds?",
        "The next round is opened as soon as enough devices are ready.",
        "Resume",
        lambda: visit.desk.command(handlers.resume),
        lambda _: "Rounds are opened again",
    )


def ask_abort(visit: Visit) -> None:
    """Give up the current round."""
    confirm(
        visit,
        "Abort the current round?",
        "Its updates stay in the journal but are not merged; the model stays as it is.",
        "Abort round",
        lambda: visit.desk.command(handlers.abort_round),
        lambda number: f"Round {number} is given up",
        danger=True,
    )


def ask_restore(visit: Visit, version: int) -> None:
    """Make an older version the current one."""
    confirm(
        visit,
        f"Go back to version {version}?",
        "It becomes the current model under a new number; what came between stays on record.",
        "Go back",
        lambda: visit.desk.command(handlers.go_back, version),
        lambda number: f"Version {version} is the current one again, as version {number}",
    )


def ask_revoke(visit: Visit, device: str) -> None:
    """Shut a device out."""
    confirm(
        visit,
        f"Revoke {device}?",
        "It is shut out for good: its messages are refused from now on, and it cannot join again under this name.",
        "Revoke",
        lambda: visit.desk.command(handlers.revoke, device),
        lambda _: f"{device} is revoked",
        danger=True,
        least=Role.ADMIN,
    )


def ask_budget(visit: Visit, device: str) -> None:
    """Give a device a budget."""

    def set_budget(text: str) -> None:
        try:
            joules = float(text) if text else None
        except ValueError:
            raise CommandRefused(Fault.INVALID, f"{text!r}: expected a number of joules") from None
        visit.desk.command(handlers.set_budget, device, joules)

    words = f"Joules a day for inference. Leave it empty to give back the device's own; {MAINS_J_PER_DAY:.0e} is mains."
    _ask_text(visit, f"Budget of {device}", words, "J a day", "Set budget", set_budget, f"Budget of {device} is set")


def ask_quarantine(visit: Visit, device: str) -> None:
    """Ask a device no more."""
    words = "It is asked to train no more until it is released, and what it sends is refused. It keeps its model."

    def shut_out(reason: str) -> None:
        visit.desk.command(handlers.shut_out, device, reason)

    _ask_text(visit, f"Quarantine {device}?", words, "Why", "Quarantine", shut_out, f"{device} is in quarantine")


def ask_release(visit: Visit, device: str) -> None:
    """Ask a device again."""
    confirm(
        visit,
        f"Release {device}?",
        "It is asked to train again, and what it did before counts no more.",
        "Release",
        lambda: visit.desk.command(handlers.release, device),
        lambda _: f"{device} is released",
    )


def _ask_text(
    visit: Visit, title: str, words: str, label: str, do: str, act: Callable[[str], object], done: str
) -> None:
    """Ask for a line of text, then act on it; the dialog stays while it is refused."""
    if not _may(visit, Role.OPERATOR):
        return
    given = {"text": ""}
    with _sheet(title, words) as dialog:
        with box("field", "label"):
            say(label)
            element = ui.element("input")
            element.on(
                "input", lambda event: given.update(text=str(event.args)), js_handler="(e) => emit(e.target.value)"
            )
        with box("row"):
            button("Cancel", dialog.close)

            async def go() -> None:
                with visit.client:
                    if await attempt(lambda: act(given["text"].strip())) is not None:
                        dialog.close()
                        ui.notify(done, type="positive", position="bottom")
                        visit.refresh()

            button(do, go, "main-one")
    dialog.open()


def ask_token(visit: Visit) -> None:
    """Make a join token, and show it once."""
    confirm(
        visit,
        "Make a join token?",
        "One device can join with it within an hour. It is shown once.",
        "Make token",
        lambda: visit.desk.command(joining.create_token, 1, HOUR_S, "made on the page"),
        lambda token: _show_token(visit, str(token)),
    )


def _show_token(visit: Visit, token: str) -> str:
    url = str(visit.request.base_url).rstrip("/")
    with _sheet("The token", "Copy it now: only its digest is kept.") as dialog:
        command(token)
        command(f"bitfleet-edge join --aggregator {url} --token {token}")
        with box("row"):
            button("Done", dialog.close, "main-one")
    dialog.open()
    return "Token made"
