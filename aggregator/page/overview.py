"""The first page: where the fleet stands."""

from dataclasses import dataclass

from aggregator import readers, summaries
from aggregator.page import words
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.parts import (
    TONES,
    Cell,
    Column,
    badge,
    bar,
    bars,
    box,
    card,
    empty,
    legend,
    link,
    say,
    stat,
    table,
)
from aggregator.paging import Window
from aggregator.rounds import ACCEPTING
from aggregator.store import JobSession, RoundState
from aggregator.views import LearningPoint, RoundDetail, RoundView, StatusView, SummaryView, TaskView

LATEST = 5
STRAGGLERS = 8
STATES = ("online", "offline", "revoked")
UNDECIDED = "undecided"
ORDER = ("accepted", "uploading", "offered", "declined", "refused", "missed")


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    status: StatusView
    summary: SummaryView
    current: RoundDetail | None
    latest: list[RoundView]
    best: LearningPoint | None


def read(session: JobSession, visit: Visit) -> Seen:
    """All of it."""
    status = summaries.status(session, visit.desk.room, visit.desk.broker_for(visit.request.url.hostname or ""))
    rated = summaries.learning(session)
    return Seen(
        status,
        summaries.summary(session),
        readers.round_detail(session, status.round),
        readers.round_views(session, Window(LATEST), newest_first=True).rows,
        max((point for point in rated if point.version == status.model_version), key=_accuracy, default=None),
    )


def _accuracy(point: LearningPoint) -> float:
    return point.accuracy


def show(visit: Visit, seen: Seen) -> None:
    """Draw it."""
    if not seen.status.devices:
        nobody(visit)
        return
    with box("grid"):
        if seen.status.paused:
            _paused(seen.status)
        _figures(seen)
        _current(visit, seen)
        with card("Devices by state", classes="w6"):
            bars(
                _sorted(seen.summary.states, STATES),
                lambda state: TONES.get(state, ""),
                lambda state: f"/devices?status={state}",
            )
        with card("Devices by precision", classes="w6"):
            bars(_by_bits(seen.summary.precisions), lambda _: "good", lambda name: f"/devices?precision={name}")
        if seen.latest:
            latest(seen.latest, visit.now)


def _sorted(counts: dict[str, int], order: tuple[str, ...]) -> dict[str, int]:
    return {name: counts[name] for name in order if name in counts}


def _by_bits(counts: dict[str, int]) -> dict[str, int]:
    """The widest first, the undecided last."""
    known = sorted((name for name in counts if name != UNDECIDED), key=lambda name: -summaries.weight_bits(name))
    return _sorted(counts, (*known, UNDECIDED))


def nobody(visit: Visit) -> None:
    """What a fleet without devices sees."""
    url = str(visit.request.base_url).rstrip("/")
    empty(
        "No devices yet",
        "Make a join token here, then let a device join with it. It appears on this page by itself.",
        "bitfleet-aggregator token",
        f"bitfleet-edge join --aggregator {url} --token TOKEN",
    )


def _paused(status: StatusView) -> None:
    with box("notice w12"):
        why = f": {status.paused_because}" if status.paused_because else "."
        say(f"Rounds are paused{why}")
        link("Resume them", "/actions", "small")


def _figures(seen: Seen) -> None:
    summary, status = seen.summary, seen.status
    members = sum(count for state, count in summary.states.items() if state != "revoked")
    stat("Devices online", str(status.online), f"of {members}")
    saved = f"{words.size(summary.update_bytes)} instead of {words.size(summary.update_fp32_bytes)}"
    stat("Uplink against fp32", words.ratio(summary.update_bytes, summary.update_fp32_bytes), below=saved)
    measured = sum(total.energy_mj for total in summary.energy if total.source == "measured")
    whole = sum(total.energy_mj for total in summary.energy)
    value, unit = words.joules(whole).split(" ")
    stat("Energy of training", value, unit, f"{words.percent(measured / whole) if whole else '0 %'} measured")
    below = f"{words.percent(seen.best.accuracy)} at {seen.best.precision}" if seen.best else "not rated"
    stat("Model version", str(status.model_version), below=below)


def _current(visit: Visit, seen: Seen) -> None:
    current, status = seen.current, seen.status
    if current is None:
        with card("Rounds"):
            say("The first round opens when enough devices are ready.", "soft")
        return
    planned = f" of {status.rounds_planned}" if status.rounds_planned else ""
    with card(f"Round {current.number}{planned}", _left(current, visit.now)):
        with box("row"):
            badge(current.state)
            link("Timeline", f"/rounds/{current.number}", "small")
        whole = sum(current.tasks.values()) or 1
        counts = {state: current.tasks[state] for state in ORDER if current.tasks.get(state)}
        with box().style("margin-top: 16px"):
            told = ", ".join(f"{count} {state}" for state, count in counts.items())
            bar([(count / whole, TONES[state]) for state, count in counts.items()], tall=True, label=told)
        legend(counts)
        _stragglers(seen)


def _left(current: RoundDetail, now: float) -> str:
    if current.state in ACCEPTING and current.deadline_at > now and current.state != RoundState.OFFERED:
        return f"{words.seconds(current.deadline_at - now)} left"
    return ""


def _stragglers(seen: Seen) -> None:
    """Who the round still waits for, and how far they are."""
    current = seen.current
    if current is None or current.state not in ACCEPTING:
        return
    awaited = [task for task in current.offers if task.state in {"offered", "uploading"}]
    if not awaited:
        return
    doing = {device.id: device for device in seen.status.live}
    rows = [_straggler(task, doing[task.device].lifecycle, doing[task.device].progress) for task in awaited]
    with box().style("margin-top: 20px"):
        say(f"Waiting for {len(awaited)}", "soft small", "div")
        columns = [Column("Device"), Column("Offer"), Column("Doing"), Column("Progress", number=True)]
        table(columns, rows[:STRAGGLERS])
        if len(rows) > STRAGGLERS:
            link(f"All {len(rows)}", f"/rounds/{current.number}", "small")


def _straggler(task: TaskView, lifecycle: str, progress: float) -> list[Cell]:
    return [
        lambda: link(task.device, f"/devices/{task.device}"),
        lambda: badge(task.state),
        lifecycle.lower() or words.NOTHING,
        f"{progress:.0%}",
    ]


LATEST_COLUMNS = [
    Column("Round"),
    Column("State"),
    Column("Accepted", number=True),
    Column("Bytes up", number=True),
    Column("Bits a weight", number=True),
    Column("Opened", number=True),
]


def latest(rows: list[RoundView], now: float) -> None:
    """The newest rounds in a few lines."""
    with card("Latest rounds", classes="w12 flush"):
        table(LATEST_COLUMNS, [_latest(row, now) for row in rows])


def _latest(row: RoundView, now: float) -> list[Cell]:
    return [
        lambda: link(f"Round {row.number}", f"/rounds/{row.number}"),
        lambda: badge(row.state),
        f"{row.tasks.get('accepted', 0)} of {sum(row.tasks.values())}",
        words.size(row.update_bytes),
        words.bits(row.update_bytes, row.update_fp32_bytes),
        words.ago(row.opened_at, now),
    ]


PAGE = Page("/", "Overview", read, show)
