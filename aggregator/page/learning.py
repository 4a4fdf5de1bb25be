"""Accuracy of the exported models: over versions, and against bits, bytes and joules."""

from collections.abc import Callable

from aggregator import summaries
from aggregator.page import charts, words
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.parts import Cell, Column, box, card, empty, say, table
from aggregator.store import JobSession
from aggregator.views import LearningPoint

Of = Callable[[LearningPoint], float]


def read(session: JobSession, _: Visit) -> list[LearningPoint]:
    """Every rated model."""
    return summaries.learning(session)


def show(_: Visit, points: list[LearningPoint]) -> None:
    """Draw it."""
    if not points:
        empty(
            "Nothing is rated yet",
            "Models are rated on held-out pictures after every round; give them with",
            "bitfleet-aggregator serve --holdout test.npz",
        )
        return
    newest = max(point.version for point in points)
    with box("grid"):
        with card("Accuracy by version", f"the newest is {newest}"):
            charts.lines(_series(points, lambda point: point.version), x="version", y="accuracy", percent=True)
        _against(points, "Accuracy against bytes", "MB sent by the fleet", lambda point: point.update_bytes / 1e6)
        _against(points, "Accuracy against joules", "J spent by the fleet", lambda point: point.energy_mj / 1e3)
        last = [point for point in points if point.version == newest]
        with card("Accuracy against bits", f"version {newest}", "w6"):
            charts.lines(
                _series(last, lambda point: point.weight_bits),
                x="bits a weight",
                y="accuracy",
                dots_only=True,
                percent=True,
                log_x=True,
            )
        with card(f"Version {newest}", classes="w6 flush"):
            columns = [Column("Precision"), Column("Accuracy", number=True), Column("File", number=True)]
            rows = [_file(point) for point in sorted(last, key=lambda point: -point.weight_bits)]
            table(columns, rows)


def _file(point: LearningPoint) -> list[Cell]:
    return [lambda: say(point.precision, "tag"), words.percent(point.accuracy), words.size(point.model_bytes)]


def _series(points: list[LearningPoint], x: Of) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for point in sorted(points, key=lambda point: (-point.weight_bits, point.version)):
        series.setdefault(point.precision, []).append((round(x(point), 6), point.accuracy))
    return series


def _against(points: list[LearningPoint], title: str, axis: str, x: Of) -> None:
    with card(title, classes="w6"):
        charts.lines(_series(points, x), x=axis, y="accuracy", percent=True)


PAGE = Page("/learning", "Learning", read, show, words="Of the integer models themselves, on held-out pictures.")
