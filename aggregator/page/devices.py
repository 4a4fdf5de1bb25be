"""Every device, filtered by name, state, precision and group."""

from dataclasses import dataclass, replace

from nicegui import ui

from aggregator import readers, summaries
from aggregator.devices import MAINS_J_PER_DAY
from aggregator.page import words
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.overview import nobody
from aggregator.page.parts import Cell, Column, badge, box, button, card, empty, link, say, table
from aggregator.paging import Window
from aggregator.readers import DeviceFilter
from aggregator.store import JobSession
from aggregator.views import DeviceView

STEP = 50
STATES = ("online", "offline", "revoked")
COLUMNS = [
    Column("Device"),
    Column("State"),
    Column("Precision"),
    Column("Why", wide=True),
    Column("Model", number=True),
    Column("Budget, J/day", number=True),
    Column("Sent", number=True),
    Column("Seen", number=True),
]


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    rows: list[DeviceView]
    more: bool
    members: int


def read(session: JobSession, visit: Visit) -> Seen:
    """The devices that are meant, as many as were asked for."""
    window = Window(visit.shown(STEP))
    page = readers.device_views(session, window, visit.chosen.get("only", _asked(visit)))
    return Seen(page.rows, bool(page.next), sum(summaries.summary(session).states.values()))


def _asked(visit: Visit) -> DeviceFilter:
    """The filter that the address names, among the devices of the chosen job."""
    query = visit.request.query_params
    asked = {name: query.get(name, "") for name in ("name", "status", "precision", "group")}
    return DeviceFilter(**asked, job=visit.desk.room.name)


def controls(visit: Visit) -> None:
    """Fields to filter by; they stay while the list changes."""
    only = visit.chosen["only"] = _asked(visit)
    summary = visit.reading(lambda session, _: summaries.summary(session))
    groups = visit.reading(lambda session, _: summaries.groups(session))
    with box("row"):
        _field(visit, "Name", "name", only.name)
        _choice(visit, "State", "status", only.status, STATES)
        precisions = [name for name in sorted(summary.precisions) if name != "undecided"]
        _choice(visit, "Precision", "precision", only.precision, precisions)
        if groups:
            _choice(visit, "Group", "group", only.group, groups)


def _filter(visit: Visit, name: str, value: str) -> None:
    visit.chosen["only"] = replace(visit.chosen["only"], **{name: value})
    visit.chosen["shown"] = STEP
    visit.refresh()


def _field(visit: Visit, title: str, name: str, value: str) -> None:
    with box("field", "label"):
        say(title)
        element = ui.element("input")
        element.props["type"], element.props["value"] = "search", value
        element.on(
            "input", lambda event: _filter(visit, name, str(event.args)), js_handler="(e) => emit(e.target.value)"
        )


def _choice(visit: Visit, title: str, name: str, value: str, options: tuple[str, ...] | list[str]) -> None:
    with box("field", "label"):
        say(title)
        with ui.element("select") as element:
            for option in ("", *options):
                item = say(option or "All", tag="option")
                item.props["value"] = option
                if option == value:
                    item.props["selected"] = True
        element.on(
            "change", lambda event: _filter(visit, name, str(event.args)), js_handler="(e) => emit(e.target.value)"
        )


def show(visit: Visit, seen: Seen) -> None:
    """Draw the list."""
    if not seen.members:
        nobody(visit)
        return
    if not seen.rows:
        empty("No device is like that", "None of the fleet's devices passes the filter above.")
        return
    with box("stack"):
        with card(classes="flush"):
            table(COLUMNS, [_row(row, visit.now) for row in seen.rows])
        if seen.more:
            button("Show more", lambda: visit.show_more(STEP))


def _row(row: DeviceView, now: float) -> list[Cell]:
    return [
        lambda: link(row.id, f"/devices/{row.id}"),
        lambda: badge(_state(row)),
        lambda: say(row.precision, "tag") if row.precision else say("undecided", "soft"),
        lambda: say(row.reason, "soft small"),
        str(row.model_version),
        budget(row),
        words.size(row.sent_bytes),
        words.ago(row.seen_at, now),
    ]


def _state(row: DeviceView) -> str:
    return "revoked" if row.revoked else "quarantined" if row.quarantined else row.status


def budget(row: DeviceView) -> str:
    """The operator's budget, of which 0 is 0, or the device's own, of which 0 is none."""
    value = row.budget_j_per_day
    if value is None:
        value = row.stated_j_per_day or MAINS_J_PER_DAY
    return "mains" if value >= MAINS_J_PER_DAY else words.digits(value)


PAGE = Page("/devices", "Devices", read, show, controls)
