"""Every round, newest first."""

from dataclasses import dataclass

from aggregator import readers
from aggregator.page import words
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.parts import TONES, Cell, Column, badge, bar, box, button, card, empty, link, say, table
from aggregator.paging import Window
from aggregator.store import JobSession
from aggregator.views import RoundView

STEP = 25
ORDER = ("accepted", "uploading", "offered", "declined", "refused", "missed")
COLUMNS = [
    Column("Round"),
    Column("State"),
    Column("Offers", wide=True),
    Column("Accepted", number=True),
    Column("Bytes up", number=True),
    Column("Bits a weight", number=True),
    Column("Took", number=True),
    Column("Note", wide=True),
]


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    rows: list[RoundView]
    more: bool


def read(session: JobSession, visit: Visit) -> Seen:
    """As many rounds as were asked for."""
    page = readers.round_views(session, Window(visit.shown(STEP)), newest_first=True)
    return Seen(page.rows, bool(page.next))


def show(visit: Visit, seen: Seen) -> None:
    """Draw the list."""
    if not seen.rows:
        empty("No rounds yet", "The first one opens when enough devices are online and ready to train.")
        return
    with box("stack"):
        with card(classes="flush"):
            table(COLUMNS, [_row(row, visit.now) for row in seen.rows])
        if seen.more:
            button("Show more", lambda: visit.show_more(STEP))


def _row(row: RoundView, now: float) -> list[Cell]:
    return [
        lambda: link(f"Round {row.number}", f"/rounds/{row.number}"),
        lambda: badge(row.state),
        lambda: offers(row),
        f"{row.tasks.get('accepted', 0)} of {sum(row.tasks.values())}",
        words.size(row.update_bytes),
        words.bits(row.update_bytes, row.update_fp32_bytes),
        words.seconds((row.closed_at or now) - row.opened_at),
        lambda: say(row.note or words.NOTHING, "soft small"),
    ]


def offers(row: RoundView) -> None:
    """What became of a round's offers, as a bar."""
    whole = sum(row.tasks.values()) or 1
    counts = {state: row.tasks[state] for state in ORDER if row.tasks.get(state)}
    with box().style("min-width: 120px; padding-top: 7px"):
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        bar([(count / whole, TONES[state]) for state, count in counts.items()], label=told)


PAGE = Page("/rounds", "Rounds", read, show)
