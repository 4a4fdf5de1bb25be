"""One round: when each device's update came, who was late, refused, declined or missed, and why."""

from dataclasses import dataclass

from aggregator import readers
from aggregator.page import words
from aggregator.page.frame import Page
from aggregator.page.live import Missing, Visit
from aggregator.page.parts import TONES, Cell, Column, badge, box, button, card, facts, legend, link, say, table
from aggregator.page.rounds import ORDER
from aggregator.page.words import NOTHING
from aggregator.store import JobSession
from aggregator.views import EnergyTotal, RoundDetail, TaskView

LANES = 60
"""Lanes drawn at first; the rest is a press away."""
TICKS = 5
URGENCY = ("refused", "uploading", "offered", "declined", "missed", "accepted")
"""Who is shown first: whoever an operator may have to look after."""
COLUMNS = [
    Column("Device"),
    Column("Outcome"),
    Column("Precision"),
    Column("Recipe"),
    Column("Bytes", number=True),
    Column("Trained", number=True),
    Column("Note", wide=True),
]


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    round: RoundDetail
    energy: list[EnergyTotal]
    shown: int


def read(session: JobSession, visit: Visit) -> Seen:
    """All of it."""
    text = visit.request.path_params["number"]
    found = readers.round_detail(session, int(text)) if text.isdecimal() and len(text) < 10 else None
    if found is None:
        raise Missing(f"There is no round {text}.")
    ledger, _ = readers.energy_view(session, found.number, None)
    return Seen(found, ledger.totals, visit.shown(LANES))


def show(visit: Visit, seen: Seen) -> None:
    """Draw it."""
    found = seen.round
    offers = sorted(found.offers, key=lambda task: (URGENCY.index(task.state), task.device))
    with box("grid"):
        _facts(found, seen.energy, visit.now)
        _timeline(visit, found, offers, seen.shown)
        with card("Offers", classes="w12 flush"):
            table(COLUMNS, [_row(task) for task in offers[: seen.shown]])
        if len(offers) > seen.shown:
            with box("w12"):
                button(f"Show all {len(offers)}", lambda: _all(visit, len(offers)))


def _all(visit: Visit, count: int) -> None:
    visit.chosen["shown"] = count
    visit.refresh()


def _facts(found: RoundDetail, energy: list[EnergyTotal], now: float) -> None:
    with card(classes="w12"):
        facts(
            {
                "State": lambda: badge(found.state),
                "Opened": f"{words.day(found.opened_at)}, {words.ago(found.opened_at, now)}",
                "Took": words.seconds((found.closed_at or now) - found.opened_at),
                "Starts from": f"model {found.base_version}",
                "Uplink": _uplink(found.update_bytes, found.update_fp32_bytes),
                "Energy": ", ".join(_energy(total) for total in energy) or NOTHING,
                **({"Rates": found.rates} if found.rates else {}),
                **({"Note": found.note} if found.note else {}),
            }
        )


def _uplink(sent: int, fp32: int) -> str:
    return f"{words.size(sent)}, {words.ratio(sent, fp32)} of fp32, {words.bits(sent, fp32)} bits a weight"


def _energy(total: EnergyTotal) -> str:
    return f"{total.purpose} {'~' if total.source == 'modelled' else ''}{words.joules(total.energy_mj)}"


def _timeline(visit: Visit, found: RoundDetail, offers: list[TaskView], shown: int) -> None:
    begin = found.opened_at
    ends = [found.closed_at or visit.now, *(task.received_at or 0.0 for task in offers)]
    whole_s = max(max(ends) - begin, 1.0)
    with card("Timeline", f"{words.seconds(whole_s)} from the opening"):
        with box("gantt"):
            for task in offers[:shown]:
                _lane(task, found, begin, whole_s)
            with box("lane-row"):
                say("")
                with box("ticks"):
                    for tick in range(TICKS):
                        say(words.seconds(whole_s * tick / (TICKS - 1)) if tick else "0")
                say("")
        legend({state: found.tasks[state] for state in ORDER if found.tasks.get(state)})


def _lane(task: TaskView, found: RoundDetail, begin: float, whole_s: float) -> None:
    end = task.received_at or found.closed_at or begin + whole_s
    due = (found.deadline_at - begin) / whole_s
    with box("lane-row"):
        link(task.device, f"/devices/{task.device}")
        lane = box("lane")
        lane.props["role"], lane.props["aria-label"] = "img", f"{task.state} after {words.seconds(end - begin)}"
        with lane:
            box(TONES.get(task.state, ""), "i").style(f"left: 0; width: {100 * min((end - begin) / whole_s, 1.0):.2f}%")
            if 0 < due < 1:
                box("due", "i").style(f"left: {100 * due:.2f}%")
        after = words.seconds(end - begin) if task.received_at else task.state
        say(f"{after}{f', {task.refusal}' if task.refusal else ''}", "soft small number")


def _row(task: TaskView) -> list[Cell]:
    judged = task.received_at is not None
    return [
        lambda: link(task.device, f"/devices/{task.device}"),
        lambda: badge(task.state, task.refusal or task.state),
        lambda: say(task.precision, "tag"),
        lambda: say(task.recipe, "small"),
        words.size(task.payload_bytes) if judged else NOTHING,
        words.seconds(task.train_s) if judged else NOTHING,
        lambda: say(task.note or NOTHING, "soft small"),
    ]


PAGE = Page("/rounds/{number}", "Round", read, show)
