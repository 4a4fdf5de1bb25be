"""The parts of every page: boxes, words, badges, bars, tables, and what is shown where there is nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

Draw = Callable[[], object]
Cell = str | Draw

TONES: Final = {
    "online": "good",
    "accepted": "good",
    "announced": "good",
    "committed": "good",
    "collecting": "good",
    "extended": "warn",
    "starved": "warn",
    "declined": "warn",
    "missed": "warn",
    "quarantined": "bad",
    "refused": "bad",
    "aborted": "bad",
    "rolled-back": "bad",
    "revoked": "bad",
    "offered": "open",
    "uploading": "open",
}
"""How a state is coloured; what is not here is grey."""


def box(classes: str = "", tag: str = "div") -> Element:
    """An element for others to lie in."""
    return ui.element(tag).classes(classes)


def say(words: str, classes: str = "", tag: str = "span") -> Element:
    """Words; whatever a device said is shown as it is, never as markup."""
    return TextElement(tag=tag, text=words).classes(classes)


def link(words: str, target: str, classes: str = "") -> Element:
    """A link."""
    element = TextElement(tag="a", text=words).classes(classes)
    element.props["href"] = target
    return element


def badge(state: str, words: str = "") -> Element:
    """A state with its colour."""
    return say(words or state, f"badge {TONES.get(state, '')}")


def card(title: str = "", aside: str = "", classes: str = "w12") -> Element:
    """A card, with a title and a word at its right if given."""
    element = box(f"card {classes}", "section")
    if title:
        with element, box("card-head"):
            say(title, tag="h2")
            if aside:
                say(aside, "soft small number")
    return element


def stat(label: str, value: str, unit: str = "", below: str = "") -> None:
    """One figure, large."""
    with card(classes="w3"):
        say(label, "stat-label", "div")
        with box("stat-value"):
            say(value)
            if unit:
                say(unit, tag="small")
        say(below or "\u00a0", "soft small number", "div")


def facts(pairs: Mapping[str, Cell], *, two: bool = False) -> None:
    """Names and what they are, in one column or two."""
    with box("facts two" if two else "facts", "dl"):
        for name, value in pairs.items():
            say(name, tag="dt")
            with box(tag="dd"):
                _draw(value)


def bars(counts: Mapping[str, int], tone: Callable[[str], str], target: Callable[[str], str]) -> None:
    """Counts as bars beside one another; the names lead somewhere."""
    largest = max(counts.values(), default=0) or 1
    with box("bars"):
        for name, count in counts.items():
            link(name, target(name))
            bar([(count / largest, tone(name))])
            say(str(count), "number")


def bar(shares: Sequence[tuple[float, str]], *, tall: bool = False, label: str = "") -> None:
    """Shares of a whole, each with its tone."""
    element = box("bar tall" if tall else "bar")
    element.props["role"], element.props["aria-label"] = "img", label or "share"
    with element:
        for share, tone in shares:
            box(tone, "i").style(f"width: {100 * min(max(share, 0.0), 1.0):.2f}%")


def legend(counts: Mapping[str, int]) -> None:
    """What the colours of a bar mean, and how many."""
    with box("legend"):
        for name, count in counts.items():
            with box(TONES.get(name, ""), "span"):
                say(str(count), tag="b")
                say(f" {name}")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, and whether it holds figures or is wide on a phone."""

    title: str
    number: bool = False
    wide: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], chosen: int | None = None) -> None:
    """A table; on a phone every row is a block of its own."""
    with box("scroll"), box("list", "table"):
        with box(tag="thead"), box(tag="tr"):
            for column in columns:
                head = say(column.title, "number" if column.number else "", "th")
                head.props["scope"] = "col"
        with box(tag="tbody"):
            for index, row in enumerate(rows):
                with box("chosen" if index == chosen else "", "tr"):
                    for column, cell in zip(columns, row, strict=True):
                        _cell(column, cell)


def _cell(column: Column, cell: Cell) -> None:
    element = box(("number " if column.number else "") + ("wide" if column.wide else ""), "td")
    if column.title:
        element.props["data-label"] = column.title
    with element:
        _draw(cell)


def _draw(cell: Cell) -> None:
    if isinstance(cell, str):
        say(cell)
    else:
        cell()


def button(words: str, act: Callable[[], object], classes: str = "") -> Element:
    """Something to press."""
    element = TextElement(tag="button", text=words).classes(f"button {classes}")
    element.props["type"] = "button"
    return element.on("click", lambda _: act())


def empty(title: str, words: str, *commands: str) -> None:
    """What is shown where there is nothing yet, and what to do about it."""
    with card(), box("empty"):
        say(title, tag="h2")
        say(words, tag="p")
        for line in commands:
            command(line)


def command(line: str) -> None:
    """A line to be typed, with a button that copies it."""
    with box("command"):
        say(line, tag="code")
        copy(line)


def copy(text: str) -> None:
    """A button that puts text on the clipboard."""

    def done() -> None:
        ui.clipboard.write(text)
        ui.notify("Copied", position="bottom", timeout=1500)

    button("Copy", done, "bare")


def wrong(title: str, words: str, again: Callable[[], object]) -> None:
    """What is shown where something failed."""
    with card(classes="w12 wrong"), box("empty"):
        say(title, tag="h2")
        say(words, tag="p")
        button("Try again", again, "main-one")


def skeleton() -> None:
    """What is shown until there is something."""
    element = box("grid")
    element.props["aria-busy"], element.props["aria-label"] = "true", "loading"
    with element:
        for height, width in ((116, "w3"), (116, "w3"), (116, "w3"), (116, "w3"), (280, "w12")):
            box(f"bone {width}").style(f"height: {height}px")
