"""Every version of the model, and its ONNX files to download."""

from dataclasses import dataclass
from functools import partial

from aggregator import readers, summaries
from aggregator.page import words
from aggregator.page.asking import ask_restore
from aggregator.page.frame import Page
from aggregator.page.live import Visit
from aggregator.page.parts import Cell, Column, box, button, card, empty, link, say, table
from aggregator.paging import Window
from aggregator.routes import API
from aggregator.store import JobSession
from aggregator.views import ExportView, ModelView

STEP = 10
COLUMNS = [
    Column("Precision"),
    Column("Accuracy", number=True),
    Column("Size", number=True),
    Column("Pictures checked", number=True),
    Column("SHA-256", wide=True),
    Column("File", number=True),
]


@dataclass(frozen=True)
class Seen:
    """What the page shows."""

    rows: list[ModelView]
    more: bool


def read(session: JobSession, visit: Visit) -> Seen:
    """As many versions as were asked for."""
    page = readers.model_views(session, Window(visit.shown(STEP)))
    return Seen(page.rows, bool(page.next))


def show(visit: Visit, seen: Seen) -> None:
    """Draw a card a version."""
    if not any(model.exports for model in seen.rows):
        empty("No exports yet", "Every committed round exports the model at the precisions that devices run.")
        return
    with box("stack"):
        for model in seen.rows:
            if model.exports:
                with card(f"Version {model.version}", words.day(model.made_at), "flush"):
                    table(COLUMNS, [_row(model, export) for export in sorted(model.exports, key=_width, reverse=True)])
                    if model.version != seen.rows[0].version:
                        with box("foot"):
                            button("Go back to it", partial(ask_restore, visit, model.version), "bare")
        if seen.more:
            button("Show more", lambda: visit.show_more(STEP))


def _width(export: ExportView) -> int:
    return summaries.weight_bits(export.precision)


def _row(model: ModelView, export: ExportView) -> list[Cell]:
    return [
        lambda: say(export.precision, "tag"),
        words.percent(export.accuracy),
        words.size(export.model_bytes),
        str(export.pictures),
        lambda: say(export.digest[:16], "soft", "code"),
        lambda: _download(f"model-{model.version}-{export.precision}.onnx", export.digest),
    ]


def _download(name: str, digest: str) -> None:
    element = link("Download", f"{API}/blobs/{digest}")
    element.props["download"] = name
    element.props["aria-label"] = f"Download {name}"


PAGE = Page(
    "/models", "Models", read, show, words="Each equals the integer reference on the pictures it was checked on."
)
